"""How quickly samples of tar shards stream through, beside tarfile's own stream over the same files, and their memory."""

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

from tqdm import tqdm

from corpus import stream_data

_SHARD = 10_000  # samples
_REPEATS = 5
_PICTURE = 8_000  # bytes that stand for a picture; nothing decodes them


def streaming_figures(samples: int, folder: Path | None = None) -> dict[str, Any]:
    """Stream synthetic samples of a picture and a json: samples a second of both, in turn, and the process's memory.

    `folder` is where the shards are written and taken away again; a temporary one where it is None.
    """
    with TemporaryDirectory(dir=folder) as place:
        shards = write_synthetic(Path(place), samples)
        seconds: dict[str, list[float]] = {"tarfile": [], "ours": []}
        memory = _ours(Path(place), samples)  # it warms the page cache for both
        for _ in tqdm(range(_REPEATS), desc="streams", leave=False):
            seconds["tarfile"].append(_timed(lambda: _tarfile(shards))[0])
            seconds["ours"].append(_timed(lambda: _ours(Path(place), 0))[0])
    ratios = sorted(theirs / ours for theirs, ours in zip(seconds["tarfile"], seconds["ours"], strict=True))
    return {
        "samples": samples,
        "shards": len(shards),
        "samples a second": {name: samples / statistics.median(values) for name, values in seconds.items()},
        "rate of tarfile's stream": {"median": statistics.median(ratios), "range": [ratios[0], ratios[-1]]},
        "memory in MB after each tenth": memory,
    }


def write_synthetic(folder: Path, samples: int) -> list[Path]:
    """Write shards of webdataset samples, two members each; the bytes are random."""
    dice = random.Random(0)
    paths = []
    for first in range(0, samples, _SHARD):
        paths.append(folder / f"train-{first // _SHARD:06d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for number in range(first, min(samples, first + _SHARD)):
                _add(archive, f"{number:09d}.jpg", b"\xff\xd8\xff" + dice.randbytes(_PICTURE - 3))
                _add(
                    archive,
                    f"{number:09d}.json",
                    json.dumps({"caption": f"a picture, number {number}", "key": str(number)}).encode(),
                )
    return paths


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _timed(call: Callable[[], list[float]]) -> tuple[float, list[float]]:
    started = time.perf_counter()
    told = call()
    return time.perf_counter() - started, told


def _tarfile(shards: list[Path]) -> list[float]:
    for path in shards:
        with tarfile.open(path, "r|") as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None, "every member is a file"
                file.read()
    return []


def _ours(folder: Path, samples: int) -> list[float]:
    """Read every sample with its picture's bytes; where their number is given, note the memory after each tenth."""
    memory = []
    for number, example in enumerate(stream_data(folder), start=1):
        example.read()
        if samples and number % (samples // 10) == 0:
            memory.append(round(resident_megabytes(), 1))
    return memory


def resident_megabytes() -> float:
    """Return the memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
