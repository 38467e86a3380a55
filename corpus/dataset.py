"""CaptionedImage pictures as training reads them: splits, drawn scenes, and one spelling for captions."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from corpus.errors import DataError
from corpus.example import Member, matches_language
from corpus.formats import read_data
from corpus.scene_captions import captions_of
from corpus.scenes import draw_scene
from model import ALL_FORMATS, ImageLimits, decode_image

SCENE_SPLITS = {"train": 1, "val": 2, "test": 3}  # series of seeds that never meet: a scene is in one split
LOCAL_IMAGE_LIMITS = ImageLimits(
    pixels=200_000_000, edge=65_536, formats=ALL_FORMATS
)  # its owner is trusted further than a client
_SCENE_COUNTS = {"train": 12_000, "val": 200}  # the test series is drawn where it is judged, in evaluation/


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One picture with its captions; `load` decodes or draws it."""

    image_id: str
    captions: tuple[str, ...]
    load: Callable[[], Image.Image]
    can_mirror: bool  # whether mirroring keeps its captions true once left and right are exchanged in the words
    fingerprint: str  # changes when the picture does


@dataclass(frozen=True, slots=True)
class CaptionDataset:
    """What one --data names: a name and its pictures by split."""

    name: str
    splits: dict[str, list[CaptionedImage]]

    def split(self, name: str) -> list[CaptionedImage]:
        return self.splits.get(name, [])


def open_dataset(data: str, *, language: str = "en", seed: int = 0) -> CaptionDataset:
    """Open drawn scenes or any data that corpus.formats reads.

    `scenes` and `scenes:COUNT` are drawn as they are needed; `places:COUNT` are the same with captions that also say where
    things lie. Raises DataError where nothing to train on is found.
    """
    kind, _, count = data.partition(":")
    if is_synthetic(data):
        return _scenes(kind, count, seed)
    splits: dict[str, list[CaptionedImage]] = {}
    for example in read_data(data, language=language):
        captions = tuple(filter(None, map(plain_caption, example.references)))
        if captions:
            # Left and right can be exchanged in English words only (augment.py).
            entry = CaptionedImage(
                example.image_id, captions, _Loader(example.read), matches_language(language, "en"), _fingerprint(example.image)
            )
            splits.setdefault(example.split, []).append(entry)
    if not splits.get("train"):
        raise DataError(f"{data!r} has no captioned picture in its train split; it has {sorted(splits) or 'none at all'}")
    return CaptionDataset(data, splits)


def is_synthetic(data: str) -> bool:
    """Return whether data are scenes that are drawn as they are needed."""
    return data.partition(":")[0] in ("scenes", "places")


def plain_caption(text: str) -> str:
    """Return a caption in the one spelling that is trained on: lower case, single spaces, no full stop at the end."""
    return re.sub(r"\s+", " ", text).strip().lower().rstrip(" .")


@dataclass(frozen=True, slots=True)
class _Loader:
    """Decodes a picture when it is called, as the service would: upright, alpha over white, 16 bits scaled."""

    read: Callable[[], bytes]

    def __call__(self) -> Image.Image:
        return decode_image(self.read(), LOCAL_IMAGE_LIMITS).upright()


def _scenes(kind: str, count: str, seed: int) -> CaptionDataset:
    if count and not count.isdigit():
        raise DataError(f"'{kind}:{count}' must say a number of scenes, such as {kind}:12000")
    counts = _SCENE_COUNTS | ({"train": int(count)} if count else {})
    splits = {
        split: [
            _scene(1000 * seed + series, number, places=kind == "places" and split == "train") for number in range(counts[split])
        ]
        for split, series in SCENE_SPLITS.items()
        if split in counts
    }
    return CaptionDataset("scenes", splits)  # one name for the same pictures: their features are cached once


def _scene(series: int, number: int, *, places: bool) -> CaptionedImage:
    scene = draw_scene(series, number)
    captions = captions_of(scene, random.Random(f"captions {series} {number}"), places=places)
    return CaptionedImage(
        f"{series}-{number}",
        tuple(caption.text for caption in captions),
        _SceneLoader(series, number),
        False,
        f"scene {series} {number}",
    )


def _fingerprint(image: Path | Member | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    file, part = (image, "") if isinstance(image, Path) else (image.shard, f" {image.offset} {image.size}")
    stat = file.stat()
    return f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}{part}"


@dataclass(frozen=True, slots=True)
class _SceneLoader:
    series: int
    number: int

    def __call__(self) -> Image.Image:
        return draw_scene(self.series, self.number).paint()
