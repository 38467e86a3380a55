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

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.image_files import find_image, missing_image_message, without_image_suffix
from corpus.formats.read_options import ReadOptions
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid

UNLISTED = "unlisted"
_LIST_NAMES = {"train": "train", "val": "dev", "test": "test"}  # split -> its name in Flickr8k
_IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "Images", "images")  # the first is its spelling
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
                captions.setdefault(match[1], []).append(match[3].strip())
                origins.setdefault(match[1], origin)
    with options.errors:
        if not captions:
            raise DataError(f"{path} has no caption; its lines must be <image>#<number><tab><caption>")
    roots = [path.parent, *(path.parent / folder for folder in _IMAGE_FOLDERS)]
    for name, texts in captions.items():
        example = None
        with options.errors:
            split = splits.get(name, UNLISTED) if splits else "train"
            image = find_image(roots, name, split)
            if image is None and options.need_images:
                raise DataError(missing_image_message(name, origins[name], path.parent))
            image_id = without_image_suffix(name)
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
