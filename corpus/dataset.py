"""Captioned images for training: splits, files on disk or synthetic scenes, and one spelling for captions."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from corpus.errors import DataError, ErrorLog
from corpus.example import Example, ShardMember, matches_language
from corpus.formats import read_data
from corpus.scene_captions import SceneWord, captions_of
from corpus.scenes import draw_scene
from model import ImageError, decode_image, read_reason

SCENE_SPLITS = {"train": 1, "val": 2, "test": 3}  # the series of each split: a scene is in one split only
_SCENE_COUNTS = {"train": 12_000, "val": 200}  # evaluation/ renders the scenes of the test series


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image with its captions; `load` decodes or renders the image, and raises DataError if that is not possible."""

    image_id: str
    captions: tuple[str, ...]
    load: Callable[[], Image.Image]
    can_mirror: bool  # whether the captions are true of the mirror image once the words left and right are swapped
    fingerprint: str  # changes when the image changes
    origin: str = ""  # the file and the line, record or sample; "" for rendered scenes
    translations: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (language, captions) of other languages
    scene: tuple[int, int] | None = None  # series and number of a synthetic scene
    scene_words: tuple[tuple[SceneWord, ...], ...] = ()  # of a synthetic scene: the words of each caption that name its objects

    @property
    def key(self) -> str:
        """Different for every image of every --data, whose ids may be the same, and another one if the image changes."""
        return f"{self.image_id} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class CaptionDataset:
    """The data of one --data option: its name, and its images by split."""

    name: str
    splits: dict[str, list[CaptionedImage]]

    def split(self, name: str) -> list[CaptionedImage]:
        """Return the images of a split; the list is empty if the data does not have the split."""
        return self.splits.get(name, [])


def open_dataset(
    data: str,
    *,
    language: str = "en",
    more_languages: Sequence[str] = (),
    seed: int = 0,
    errors: ErrorLog | None = None,
    need_images: bool = True,
) -> CaptionDataset:
    """Open synthetic scenes, or data in any format of corpus.formats.

    `scenes` and `scenes:COUNT` are synthetic scenes, rendered when they are loaded. `positions` and `positions:COUNT` are the
    same scenes with additional captions that state the positions of objects. `seed` selects the scenes; `language` selects
    the captions of other data, and `more_languages` their translations. If `errors` keeps messages, records that cannot be
    read are left out; without `need_images`, images may be missing: `usable_entries` separates them. Raises DataError if the
    train split has no image with a caption.
    """
    if is_synthetic(data):
        kind, _, count = data.partition(":")
        return _synthetic_dataset(kind, count, seed)
    splits: dict[str, list[CaptionedImage]] = {}
    translations = _translations(data, more_languages, need_images)
    for example in read_data(data, language=language, errors=errors, need_images=need_images):
        captions = tuple(filter(None, map(normalize_caption, example.references)))
        if captions:
            # augment.py can swap left and right in English only.
            entry = CaptionedImage(
                example.image_id,
                captions,
                FileLoader(example),
                matches_language(language, "en"),
                _fingerprint(example.image),
                example.origin,
                tuple(translations.get(example.image_id, {}).items()),
            )
            splits.setdefault(example.split, []).append(entry)
    if not splits.get("train"):
        raise DataError(
            f"{data!r} has no image with a caption in its train split; it has {sorted(splits) or 'no split with captions'}; "
            "name data that has a train split"
        )
    return CaptionDataset(data, splits)


def _translations(data: str, languages: Sequence[str], need_images: bool) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the captions of other languages by image id and language."""
    translations: dict[str, dict[str, tuple[str, ...]]] = {}
    for language in languages:
        try:
            examples = list(read_data(data, language=language, need_images=need_images))
        except DataError:  # no caption in that language; the data itself has been read or refused in the main one
            continue
        for example in examples:
            if captions := tuple(filter(None, map(normalize_caption, example.references))):
                translations.setdefault(example.image_id, {})[language] = captions
    return translations


def is_synthetic(data: str) -> bool:
    """Return whether `data` names synthetic scenes instead of files."""
    return data.partition(":")[0] in ("scenes", "positions")


def normalize_caption(text: str) -> str:
    """Return a caption in the spelling of the training data: lower case, single spaces, no full stop at the end."""
    return re.sub(r"\s+", " ", text).strip().lower().rstrip(" .。।")


@dataclass(frozen=True, slots=True)
class FileLoader:
    """Decodes an image as the service does: upright, alpha over white, 16 bits scaled to 8."""

    example: Example

    def __call__(self) -> Image.Image:
        return self.decode()

    def decode(self, min_size: tuple[int, int] | None = None) -> Image.Image:
        """Return the upright image; a JPEG may be decoded smaller, but not below twice `min_size`. Raises DataError."""
        try:
            return decode_image(self.example.read(), self.example.image_limits, min_size=min_size).upright()
        except (OSError, ValueError) as error:  # a missing file, or a name that no file can have
            reason = read_reason(error)
            raise DataError(f"{self._name} cannot be read ({reason}); copy it there, or remove its record") from error
        except ImageError as error:
            raise DataError(f"{self._name} cannot be used: {error}") from error
        except Exception as error:  # the conversion of a frame can fail with any error of a Pillow plugin
            raise DataError(f"{self._name} cannot be converted to RGB; save it again, or remove its record") from error

    @property
    def _name(self) -> str:
        """The record and its image, for messages."""
        origin, location = self.example.origin, self.example.location
        return location if location.startswith(origin) else f"{origin}: {location}"


@dataclass(frozen=True, slots=True)
class _SceneLoader:
    """Renders a synthetic scene."""

    series: int
    number: int

    def __call__(self) -> Image.Image:
        return draw_scene(self.series, self.number).render()


def _synthetic_dataset(kind: str, count: str, seed: int) -> CaptionDataset:
    if count and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise DataError(f"'{kind}:{count}' has no number of scenes; write a number of at least 1, such as {kind}:12000")
    counts = _SCENE_COUNTS | ({"train": int(count)} if count else {})
    splits = {
        split: [
            _captioned_scene(1000 * seed + series, number, positions=kind == "positions" and split == "train")
            for number in range(counts[split])
        ]
        for split, series in SCENE_SPLITS.items()
        if split in counts
    }
    return CaptionDataset("scenes", splits)  # one name for the same images: their features are cached once


def _captioned_scene(series: int, number: int, *, positions: bool) -> CaptionedImage:
    scene = draw_scene(series, number)
    captions = captions_of(scene, random.Random(f"captions {series} {number}"), positions=positions)
    return CaptionedImage(
        f"{series}-{number}",
        tuple(caption.text for caption in captions),
        _SceneLoader(series, number),
        False,
        f"scene {series} {number}",
        scene=(series, number),
        scene_words=tuple(caption.words for caption in captions),
    )


def _fingerprint(image: Path | ShardMember | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    file, position = (image, "") if isinstance(image, Path) else (image.shard, f" {image.offset} {image.size}")
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return f"missing {file}"
    return f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}{position}"
