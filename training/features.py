"""The frozen stem's feature maps, computed once and kept in a file: the stem's part of an epoch then costs nothing.

Shapes: N pictures, W views a picture, F channels.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from corpus import Captioned, augmented
from model import CaptionNetwork, ImageConfig, squash

_BATCH = 32  # pictures a stem call


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Stem maps of every view of every picture, float16 on disk."""

    maps: list[Any]  # one memory map (N, W, F, rows, columns) a stride

    def __len__(self) -> int:
        return len(self.maps[0])

    @property
    def views(self) -> int:
        return int(self.maps[0].shape[1])

    def read(self, pictures: list[int], views: list[int]) -> tuple[Tensor, ...]:
        """Return the maps of these views of these pictures, (B, F, rows, columns) float32 each."""
        return tuple(torch.from_numpy(stored[pictures, views].astype(np.float32)) for stored in self.maps)


def cached_features(
    folder: Path, network: CaptionNetwork, entries: list[Captioned], views: int, dtype: torch.dtype, name: str
) -> FeatureCache:
    """Return the stem's maps of `entries`, from `folder` if they were computed before by the same weights.

    A cache that was cut off while it was written is never taken for a whole one: its marker is written last.
    """
    key = _fingerprint(network, entries, views)
    place = folder / f"{name}-{key}"
    marker = place / "complete.json"
    if not marker.exists():
        place.mkdir(parents=True, exist_ok=True)
        shapes = _write(place, network, entries, views, dtype, name)
        marker.write_text(json.dumps(shapes))
    count = len(json.loads(marker.read_text()))
    return FeatureCache([np.load(place / f"{stride}.npy", mmap_mode="r") for stride in range(count)])


def _write(
    place: Path, network: CaptionNetwork, entries: list[Captioned], views: int, dtype: torch.dtype, name: str
) -> list[list[int]]:
    files: list[Any] = []
    plan = [(number, view) for number in range(len(entries)) for view in range(views)]
    done = 0
    stem = copy.deepcopy(network.encoder).eval().to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for pixels in _batches(network, entries, plan):
            maps = stem.stem(pixels.to(dtype=dtype, memory_format=torch.channels_last))
            for stride, value in enumerate(maps):
                if len(files) <= stride:
                    shape = (len(entries), views, *value.shape[1:])
                    files.append(np.lib.format.open_memmap(place / f"{stride}.npy", "w+", np.float16, shape))
                flat = files[stride].reshape(-1, *value.shape[1:])
                flat[done : done + len(value)] = value.float().clamp(-65504, 65504).numpy()
            done += len(pixels)
    for file in files:
        file.flush()
    return [list(file.shape) for file in files]


def _batches(network: CaptionNetwork, entries: list[Captioned], plan: list[tuple[int, int]]) -> Iterator[Tensor]:
    """Decode, change and squash pictures in threads, a few batches ahead of the stem."""
    image = network.config.image

    def prepare(item: tuple[int, int]) -> Tensor:
        return view_pixels(entries[item[0]], item[1], image)

    with ThreadPoolExecutor(2) as pool:
        chunks = [plan[at : at + _BATCH] for at in range(0, len(plan), _BATCH)]
        waiting = [pool.map(prepare, chunk) for chunk in chunks[:2]]
        for number in tqdm(range(len(chunks)), desc="stem", unit="batch", leave=False):
            if number + 2 < len(chunks):
                waiting.append(pool.map(prepare, chunks[number + 2]))
            yield torch.stack(list(waiting.pop(0)))


def view_pixels(entry: Captioned, view: int, image: ImageConfig) -> Tensor:
    """Return view number `view` of a picture, (3, height, width) float32: the same every time it is asked for."""
    dice = random.Random(f"view {entry.image_id} {view}")
    return squash(augmented(entry.load(), view, dice), image)


def _fingerprint(network: CaptionNetwork, entries: list[Captioned], views: int) -> str:
    """Return a name for exactly these weights, pictures and views."""
    pictures = [[entry.image_id, entry.fingerprint] for entry in entries]
    digest = hashlib.sha256(json.dumps([views, pictures]).encode())
    digest.update(repr((network.config.image, network.config.encoder.stem_strides)).encode())
    for name, value in network.encoder.vit.patch_embed.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
