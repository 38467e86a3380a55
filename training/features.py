"""The output of an encoder's frozen part, computed once and cached in files, so that it costs nothing in later epochs.

Shapes: N images, W views per image, B images of a batch, F channels, S image tokens, C hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor, nn
from tqdm import tqdm

from corpus import Augmentation, CaptionedImage, augmented
from model import (
    CaptionNetwork,
    ConfigError,
    ImageConfig,
    ImageEncoder,
    ImageFeatures,
    PatchEncoder,
    fold_batch_norms,
    resize_and_normalize,
    to_device,
)
from training.ranks import Ranks

_BATCH = 32  # images per call of the frozen part
_PREPROCESSING = 2  # another number when images are decoded to other pixels; 2: color profiles are applied
_SPARE_BYTES = 2**30  # left free on the disk


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """The part of an encoder that is not trained: its output can be cached, and the rest computes from it."""

    kind: Literal["none", "stem", "encoder"]

    def module(self, encoder: ImageEncoder) -> nn.Module | None:
        """Return the frozen module, None if nothing is frozen. Raises ConfigError if the encoder has no stem."""
        if self.kind == "encoder":
            return encoder
        if self.kind == "stem" and not encoder.config.stem:
            raise ConfigError("this network has no stem to freeze; use --freeze none, or --freeze encoder")
        if self.kind != "stem":
            return None
        assert isinstance(encoder, PatchEncoder), "only its encoders have a stem"
        return encoder.vit.patch_embed.backbone

    def output(self, encoder: ImageEncoder, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> what is cached: feature maps (B, F, rows, columns), tokens (B, S, C), or the pixels."""
        if self.kind == "encoder":
            return (encoder(pixels).tokens,)
        return encoder.stem(pixels) if self.kind == "stem" else (pixels,)

    def features(self, encoder: ImageEncoder, cached: tuple[Tensor, ...]) -> ImageFeatures:
        """The result of `output` -> the encoder's features."""
        if self.kind == "encoder":
            return ImageFeatures(cached[0], encoder.grid, encoder.config.num_prefix_tokens)
        return encoder.finish(cached) if self.kind == "stem" else encoder(cached[0])


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The frozen part's output for every view of every image, float16 on disk, in one or more parts."""

    parts: list[list[Any]]  # of each part memory-mapped (N, W, …): one array per feature map of a stem, or one of tokens
    rows: list[tuple[int, int]]  # part and row of every image

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_views(self) -> int:
        return int(self.parts[0][0].shape[1])

    def read(self, images: Sequence[int], views: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the cached output of these views of these images, (B, …) float32 each."""
        stored = [[array[row, view] for array in self.parts[part]]
                  for (part, row), view in zip((self.rows[image] for image in images), views, strict=True)]  # fmt: skip
        return tuple(torch.from_numpy(np.stack(arrays).astype(np.float32)) for arrays in zip(*stored, strict=True))


def cached_features(
    folder: Path,
    network: CaptionNetwork,
    part: FrozenPart,
    entries: list[CaptionedImage],
    views: int,
    dtype: torch.dtype,
    name: str,
    ranks: Ranks | None = None,
) -> FeatureCache:
    """Return the frozen part's output for `entries`: what `folder` has of the same weights, and the rest computed now.

    Every call that computes adds a part to the folder, so that more images cost only what is new. A part gets its name when it is
    complete; the rest of an interrupted one is removed by the next call. Every rank computes its share, and all must call this.
    Raises ConfigError if the disk has no room for it.
    """
    ranks = ranks or Ranks()
    target = folder / f"{name}-{_fingerprint(network, part, views)}"
    keys = [entry.key for entry in entries]
    known = _read_parts(target)
    if new := [number for number, key in enumerate(keys) if key not in known]:
        if ranks.is_first:
            _remove_interrupted(target)
        ranks.barrier()  # now all have read what is known, and none has written
        if own := ranks.part(new):
            unfinished = target / f"unfinished-{ranks.rank}-{os.getpid()}"
            unfinished.mkdir(parents=True)
            _write(unfinished, network, part, [entries[number] for number in own], views, dtype, len(new))
            (unfinished / "images.json").write_text(json.dumps([keys[number] for number in own]), encoding="utf-8")
            _add_part(target, unfinished)
        ranks.barrier()
        known = _read_parts(target)
    rows = [known[key] for key in keys]
    folders = sorted({at for at, _ in rows})
    return FeatureCache([_arrays(at) for at in folders], [(folders.index(at), row) for at, row in rows])


def _add_part(target: Path, unfinished: Path) -> None:
    """Give a complete part its name; another rank may take a name at the same moment."""
    number = len(list(target.glob("part-*")))
    while True:
        try:
            unfinished.rename(target / f"part-{number}")
            return
        except OSError:
            if not (target / f"part-{number}").exists():
                raise
            number += 1


def _remove_interrupted(target: Path) -> None:
    """Remove parts whose process has ended before it was done, and those that this one has left."""
    for folder in target.glob("unfinished-*"):
        owner = int(folder.name.rpartition("-")[2])
        try:
            if owner != os.getpid():
                os.kill(owner, 0)
                continue  # it is still being written
        except ProcessLookupError:
            pass
        except PermissionError:  # another user's process is there
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _arrays(part: Path) -> list[Any]:
    """Return the arrays of a part, in order, memory-mapped."""
    return [np.load(file, mmap_mode="r") for file in sorted(part.glob("*.npy"), key=lambda file: int(file.stem))]


def _read_parts(target: Path) -> dict[str, tuple[Path, int]]:
    """Return the part and the row of every cached image, by key."""
    known: dict[str, tuple[Path, int]] = {}
    for listed in sorted(target.glob("part-*/images.json")):
        known |= {key: (listed.parent, row) for row, key in enumerate(json.loads(listed.read_text(encoding="utf-8")))}
    return known


def _write(
    target: Path,
    network: CaptionNetwork,
    part: FrozenPart,
    entries: list[CaptionedImage],
    views: int,
    dtype: torch.dtype,
    num_images: int,  # of all ranks, which share the disk
) -> None:
    files: list[Any] = []
    plan = [(number, view) for number in range(len(entries)) for view in range(views)]
    done = 0
    encoder = copy.deepcopy(network.encoder).eval()
    fold_batch_norms(encoder)
    encoder = encoder.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for pixels in _batches(network, entries, plan):
            outputs = part.output(encoder, to_device(pixels, network.device).to(dtype=dtype, memory_format=torch.channels_last))
            if not files:
                _check_free_space(target, 2 * num_images * views * sum(value[0].numel() for value in outputs))
            for index, value in enumerate(outputs):
                if len(files) <= index:
                    shape = (len(entries), views, *value.shape[1:])
                    files.append(np.lib.format.open_memmap(target / f"{index}.npy", "w+", np.float16, shape))
                flat = files[index].reshape(-1, *value.shape[1:])
                if not torch.isfinite(value).all():
                    name = str(dtype).removeprefix("torch.")
                    raise ConfigError(f"the frozen part of the encoder overflows in {name}; train with --dtype float32")
                flat[done : done + len(value)] = value.float().clamp(-65504, 65504).cpu().numpy()
            done += len(pixels)
    for file in files:
        file.flush()


def _batches(network: CaptionNetwork, entries: list[CaptionedImage], plan: list[tuple[int, int]]) -> Iterator[Tensor]:
    """Decode, augment and resize images in threads, a few batches ahead of the frozen part."""
    image = network.config.image

    def prepare(item: tuple[int, int]) -> Tensor:
        return view_pixels(entries[item[0]], item[1], image)

    with ThreadPoolExecutor(2) as pool:
        chunks = [plan[at : at + _BATCH] for at in range(0, len(plan), _BATCH)]
        pending = [pool.map(prepare, chunk) for chunk in chunks[:2]]
        for number in tqdm(range(len(chunks)), desc="features", unit="batch", leave=False, disable=None):
            if number + 2 < len(chunks):
                pending.append(pool.map(prepare, chunks[number + 2]))
            yield torch.stack(list(pending.pop(0)))


def view_pixels(entry: CaptionedImage, view: int, image: ImageConfig) -> Tensor:
    """Return view number `view` of an image, (3, height, width) float32: always the same for the same number."""
    rng = random.Random(f"view {entry.image_id} {view}")
    return resize_and_normalize(augmented(entry.load(), view, rng), image)


def random_view_pixels(
    entry: CaptionedImage, is_mirrored: bool, augmentation: Augmentation, rng: random.Random, image: ImageConfig
) -> Tensor:
    """Return an image as `augmentation` changes it, (3, height, width) float32: another one for each random state."""
    changed = augmentation(entry.load(), rng)
    return resize_and_normalize(ImageOps.mirror(changed) if is_mirrored else changed, image)


def _check_free_space(folder: Path, size: int) -> None:
    """Raises ConfigError if a disk has less space than a cache of `size` bytes needs."""
    free = shutil.disk_usage(folder).free
    if size + _SPARE_BYTES > free:
        raise ConfigError(
            f"the frozen features take {size / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; use fewer --num-views, a "
            "--feature-cache on another disk, or --freeze none"
        )


def _fingerprint(network: CaptionNetwork, part: FrozenPart, views: int) -> str:
    """Return a key for exactly these weights and views; features of another dtype have the same key."""
    digest = hashlib.sha256(json.dumps([_PREPROCESSING, views]).encode())
    encoder = network.config.encoder
    digest.update(repr((network.config.image, encoder.stem_strides, encoder.centered)).encode())
    module = part.module(network.encoder)
    assert module is not None, "nothing is frozen"
    if part.kind == "encoder":  # number of heads and epsilons show in no tensor
        digest.update(repr(encoder).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
