"""Flickr8k's token file (Hodosh, Young and Hockenmaier 2013): `<image>#<number><tab><caption>`; Flickr30k's is the same.

The lists of images next to it (*trainImages.txt, *devImages.txt, *testImages.txt) are the splits. If there is a list, images
in none of the lists are in the split `unlisted`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example
from corpus.formats.fields import clean_caption
from corpus.formats.image_files import image_roots, missing_image_message, normalize_name, without_image_suffix
from corpus.formats.read_options import ReadOptions
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid

UNLISTED = "unlisted"
_LIST_NAMES = {"train": "train", "val": "dev", "test": "test"}  # split -> its name in Flickr8k
_LINE = re.compile(r"([^\t]+)#(\d+)[\t ]+(.*)")


def read_flickr8k(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read token files with the lists of their splits."""
    return chain.from_iterable(_read(path, options) for path in paths)


def write_flickr8k(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write Flickr8k.token.txt, the three lists, and the images in images/."""
    names_by_split: defaultdict[str, list[str]] = defaultdict(list)
    with folder.open("Flickr8k.token.txt") as file:
        for number, example in enumerate_valid(examples):
            name = folder.write_image(example, number, "images", by_id=True).partition("/")[2]
            if "#" in name:
                raise DataError(
                    f"the image id {example.image_id!r} has a '#', which ends the image name in this format; "
                    "convert to another format, such as jsonl"
                )
            names_by_split[example.split].append(name)
            for index, text in enumerate(example.references):
                file.write(f"{name}#{index}\t{text}\n")
    for split, list_name in _LIST_NAMES.items():
        with folder.open(f"Flickr_8k.{list_name}Images.txt") as file:
            file.writelines(f"{name}\n" for name in names_by_split[split])


def read_list(path: Path, options: ReadOptions) -> dict[str, str]:
    """Return the image names in a list (one per line), each with its file and line. Raises DataError if it cannot be read."""
    return {line.strip(): f"{path}, line {number}" for number, line in text_lines(path, options.errors) if line.strip()}


def is_token_file(path: Path) -> bool:
    """Return whether the first line of a file is `<image>#<number><tab><caption>`."""
    try:
        _, line = next(text_lines(path, ErrorLog()), (0, ""))
    except DataError:
        return False
    return _LINE.fullmatch(line.rstrip("\r\n")) is not None


def _read(path: Path, options: ReadOptions) -> Iterator[Example]:
    splits = _read_splits(path, options)
    captions: dict[str, list[str]] = {}
    origins: dict[str, str] = {}
    for number, line in text_lines(path, options.errors):
        with options.errors:
            if line.strip():
                origin = f"{path}, line {number}"
                match = _LINE.fullmatch(line.rstrip("\r\n"))
                if match is None:
                    raise DataError(f"{origin} is {line.strip()[:60]!r}; it must be <image>#<number><tab><caption>")
                text = clean_caption(match[3], origin)
                if not text:
                    options.errors.skip(origin, f"an empty caption of image {match[1]!r}")
                captions.setdefault(match[1], []).extend([text] if text else [])
                origins.setdefault(match[1], origin)
    with options.errors:
        if not captions:
            raise DataError(f"{path} has no caption; its lines must be <image>#<number><tab><caption>")
    for name in splits.keys() - captions.keys():
        options.errors.skip(
            f"{path.parent}", f"image {name!r} is in the list of {splits[name]!r} and has no caption in {path.name}"
        )
    for name, texts in captions.items():
        example = None
        with options.errors:
            split = splits.get(name, UNLISTED) if splits else "train"
            image = options.images.find(image_roots(path), name, split)
            if image is None and options.need_images:
                raise DataError(missing_image_message(name, origins[name], path.parent))
            image_id = without_image_suffix(normalize_name(name))
            example = Example(image or path.parent / name, tuple(texts), split, image_id, origin=origins[name])
        if example is not None:
            yield example


def _read_splits(path: Path, options: ReadOptions) -> dict[str, str]:
    """Return the split of each image in the lists next to a token file."""
    splits: dict[str, str] = {}
    for split, list_name in _LIST_NAMES.items():
        for file in sorted(path.parent.glob(f"*{list_name}Images.txt")):
            for name, origin in read_list(file, options).items():
                with options.errors:
                    if splits.setdefault(name, split) != split:
                        raise DataError(f"{origin}: {name!r} is also in the list of {splits[name]!r}; choose one split")
    return splits
