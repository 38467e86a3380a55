"""Throughput and memory of streaming samples from tar shards, next to tarfile's own stream over the same files."""

from __future__ import annotations

import io
import json
import random
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm

from corpus import stream_data
from training import memory_used

_SHARD_SAMPLES = 10_000
_REPEATS = 5
_IMAGE_BYTES = 8_000  # random bytes; nothing decodes them


def measure_streaming(samples: int, folder: Path | None = None) -> dict[str, Any]:
    """Stream synthetic samples, each an image and a JSON file: samples per second in turns with tarfile, and memory in MB.

    The shards are written to a temporary folder inside `folder` (None: the system's) and removed at the end.
    """
    with TemporaryDirectory(dir=folder) as temporary:
        shards = write_synthetic_shards(Path(temporary), samples)
        seconds: dict[str, list[float]] = {"tarfile": [], "ours": []}
        memory = _read_ours(Path(temporary), samples)  # also fills the page cache for both
        for _ in tqdm(range(_REPEATS), desc="streams", leave=False):
            seconds["tarfile"].append(_seconds(lambda: _read_tarfile(shards)))
            seconds["ours"].append(_seconds(lambda: _read_ours(Path(temporary), 0)))
    ratios = sorted(theirs / ours for theirs, ours in zip(seconds["tarfile"], seconds["ours"], strict=True))
    return {
        "samples": samples,
        "shards": len(shards),
        "samples_per_second": {name: samples / statistics.median(values) for name, values in seconds.items()},
        "speed_relative_to_tarfile": {"median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]},
        "memory_mb_after_each_tenth": memory,
    }


def random_bytes(rng: random.Random) -> bytes:
    """Return what begins like a JPEG file."""
    return b"\xff\xd8\xff" + rng.randbytes(_IMAGE_BYTES - 3)


def write_synthetic_shards(folder: Path, samples: int, image: Callable[[random.Random], bytes] = random_bytes) -> list[Path]:
    """Write shards of webdataset samples, two members each, with the bytes of `image`; returns the files."""
    rng = random.Random(0)
    paths = []
    for first in range(0, samples, _SHARD_SAMPLES):
        paths.append(folder / f"train-{first // _SHARD_SAMPLES:06d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for number in range(first, min(samples, first + _SHARD_SAMPLES)):
                _add(archive, f"{number:09d}.jpg", image(rng))
                _add(
                    archive,
                    f"{number:09d}.json",
                    json.dumps({"caption": f"image number {number}", "key": str(number)}).encode(),
                )
    return paths


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _read_tarfile(shards: list[Path]) -> None:
    for path in shards:
        with tarfile.open(path, "r|") as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None, "every member is a file"
                file.read()


def _read_ours(folder: Path, samples: int) -> list[float]:
    """Read the image bytes of every sample; return the memory in MB after each tenth of `samples`, [] if that is 0."""
    memory = []
    for number, example in enumerate(stream_data(folder), start=1):
        example.read()
        if samples and number % (samples // 10) == 0:
            memory.append(round(resident_megabytes(), 1))
    return memory


def resident_megabytes() -> float:
    """Return the resident memory of this process."""
    return memory_used(torch.device("cpu")) / 1e6
