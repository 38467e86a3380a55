"""What the frozen part of an encoder gives, computed once and kept in a file: its part of an epoch then costs nothing.

Shapes: N pictures, W views a picture, F channels, S image tokens, C width.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from corpus import Captioned, augmented
from model import CaptionNetwork, ConfigError, ImageConfig, ImageFeatures, PatchEncoder, squash

_BATCH = 32  # pictures a call of the frozen part
_SPARE = 2**30  # bytes that are left free on the disk


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """What of an encoder stays as it is: its output can be kept, and the rest goes on from there."""

    kind: Literal["none", "stem", "encoder"]

    def module(self, encoder: PatchEncoder) -> nn.Module | None:
        """Return the frozen module. Raises ConfigError where the encoder has no stem."""
        if self.kind == "encoder":
            return encoder
        if self.kind == "stem" and not encoder.config.stem:
            raise ConfigError("this network has no stem to freeze; use --freeze none, or --freeze encoder")
        return encoder.vit.patch_embed.backbone if self.kind == "stem" else None

    def output(self, encoder: PatchEncoder, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> what is kept: maps (B, F, rows, columns), or tokens (B, S, C), or the pixels."""
        if self.kind == "encoder":
            return (encoder(pixels).tokens,)
        return encoder.stem(pixels) if self.kind == "stem" else (pixels,)

    def features(self, encoder: PatchEncoder, kept: tuple[Tensor, ...]) -> ImageFeatures:
        """What `output` returned -> the encoder's features."""
        if self.kind == "encoder":
            return ImageFeatures(kept[0], encoder.grid, encoder.config.prefix)
        return encoder.finish(kept) if self.kind == "stem" else encoder(kept[0])


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The frozen part's output for every view of every picture, float16 on disk."""

    maps: list[Any]  # memory maps (N, W, …): one a stride of a stem, or one of tokens

    def __len__(self) -> int:
        return len(self.maps[0])

    @property
    def views(self) -> int:
        return int(self.maps[0].shape[1])

    def read(self, pictures: list[int], views: list[int]) -> tuple[Tensor, ...]:
        """Return what is kept of these views of these pictures, (B, …) float32 each."""
        return tuple(torch.from_numpy(stored[pictures, views].astype(np.float32)) for stored in self.maps)


def cached_features(
    folder: Path, network: CaptionNetwork, part: FrozenPart, entries: list[Captioned], views: int, dtype: torch.dtype, name: str
) -> FeatureCache:
    """Return the frozen part's output for `entries`, from `folder` if it was computed before by the same weights.

    A cache that was cut off while it was written is never taken for a whole one: its marker is written last. Raises
    ConfigError where the disk has no room for it.
    """
    key = _fingerprint(network, part, entries, views)
    place = folder / f"{name}-{key}"
    marker = place / "complete.json"
    if not marker.exists():
        place.mkdir(parents=True, exist_ok=True)
        shapes = _write(place, network, part, entries, views, dtype)
        marker.write_text(json.dumps(shapes))
    count = len(json.loads(marker.read_text()))
    return FeatureCache([np.load(place / f"{stride}.npy", mmap_mode="r") for stride in range(count)])


def _write(
    place: Path, network: CaptionNetwork, part: FrozenPart, entries: list[Captioned], views: int, dtype: torch.dtype
) -> list[list[int]]:
    files: list[Any] = []
    plan = [(number, view) for number in range(len(entries)) for view in range(views)]
    done = 0
    encoder = copy.deepcopy(network.encoder).eval().to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for pixels in _batches(network, entries, plan):
            maps = part.output(encoder, pixels.to(dtype=dtype, memory_format=torch.channels_last))
            if not files:
                _check_room(place, 2 * len(plan) * sum(value[0].numel() for value in maps))
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
        for number in tqdm(range(len(chunks)), desc="features", unit="batch", leave=False):
            if number + 2 < len(chunks):
                waiting.append(pool.map(prepare, chunks[number + 2]))
            yield torch.stack(list(waiting.pop(0)))


def view_pixels(entry: Captioned, view: int, image: ImageConfig) -> Tensor:
    """Return view number `view` of a picture, (3, height, width) float32: the same every time it is asked for."""
    dice = random.Random(f"view {entry.image_id} {view}")
    return squash(augmented(entry.load(), view, dice), image)


def _check_room(place: Path, wanted: int) -> None:
    """Raises ConfigError where a disk has less room than a cache of `wanted` bytes needs."""
    free = shutil.disk_usage(place).free
    if wanted + _SPARE > free:
        raise ConfigError(
            f"the frozen features take {wanted / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free; use fewer --views, a "
            "--cache elsewhere, or --freeze none"
        )


def _fingerprint(network: CaptionNetwork, part: FrozenPart, entries: list[Captioned], views: int) -> str:
    """Return a name for exactly these weights, pictures and views."""
    pictures = [[entry.image_id, entry.fingerprint] for entry in entries]
    digest = hashlib.sha256(json.dumps([views, pictures]).encode())
    digest.update(repr((network.config.image, network.config.encoder.stem_strides)).encode())
    module = part.module(network.encoder)
    assert module is not None, "nothing is frozen"
    if part.kind == "encoder":  # heads and epsilons show in no tensor
        digest.update(repr(network.config.encoder).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
