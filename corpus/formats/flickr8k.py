"""Flickr8k's token file (Hodosh, Young and Hockenmaier 2013): `<picture>#<number><tab><caption>`; Flickr30k's is the same.

The lists of pictures beside it (…trainImages.txt, …devImages.txt, …testImages.txt) are the splits; where there is one, a
picture in none of them is in the split `unlisted`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import Reading, find_picture, missing_picture, text_lines, without_ending
from corpus.formats.writing import NewFolder, numbered

SPLITS = {"train": "train", "val": "dev", "test": "test"}  # a split and what Flickr8k calls it
UNLISTED = "unlisted"
_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "Images", "images")  # its authors spell the first so


def read_flickr8k(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read token files with the lists of their splits."""
    return chain.from_iterable(_read(path, reading) for path in paths)


def write_flickr8k(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write Flickr8k.token.txt, the three lists, and the pictures in images/."""
    listed: defaultdict[str, list[str]] = defaultdict(list)
    with folder.open("Flickr8k.token.txt") as file:
        for number, example in numbered(examples):
            name = folder.picture(example, number, "images", by_id=True).partition("/")[2]
            if "#" in name:
                raise DataError(f"the image id {example.image_id!r} has a '#', which ends the picture's name in this format")
            listed[example.split].append(name)
            for place, text in enumerate(example.references):
                file.write(f"{name}#{place}\t{text}\n")
    for split, told in SPLITS.items():
        with folder.open(f"Flickr_8k.{told}Images.txt") as file:
            file.writelines(f"{name}\n" for name in listed[split])


def read_list(path: Path, reading: Reading) -> dict[str, str]:
    """Return the pictures that a list names, a line each, with where each stands."""
    return {line.strip(): f"{path}, line {number}" for number, line in text_lines(path, reading.faults) if line.strip()}


def _read(path: Path, reading: Reading) -> Iterator[Example]:
    splits: dict[str, str] = {}
    for split, told in SPLITS.items():
        for file in sorted(path.parent.glob(f"*{told}Images.txt")):
            for name, where in read_list(file, reading).items():
                with reading.faults:
                    if splits.setdefault(name, split) != split:
                        raise DataError(f"{where}: {name!r} is in the list of {splits[name]!r} too; choose one split")
    captions: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for number, line in text_lines(path, reading.faults):
        with reading.faults:
            if line.strip():
                where = f"{path}, line {number}"
                found = re.fullmatch(r"([^\t]+)#(\d+)[\t ]+(.*)", line.rstrip("\r\n"))
                if found is None:
                    raise DataError(f"{where} is {line.strip()[:60]!r}; it must be <picture>#<number><tab><caption>")
                captions.setdefault(found[1], []).append(found[3].strip())
                first.setdefault(found[1], where)
    with reading.faults:
        if not captions:
            raise DataError(f"{path} holds no caption; its lines are <picture>#<number><tab><caption>")
    roots = [path.parent, *(path.parent / folder for folder in _FOLDERS)]
    for name, texts in captions.items():
        example = None
        with reading.faults:
            split = splits.get(name, UNLISTED) if splits else "train"
            image = find_picture(roots, name, split)
            if image is None and reading.need_images:
                raise DataError(missing_picture(name, first[name], path.parent))
            example = Example(image or path.parent / name, tuple(texts), split, without_ending(name), where=first[name])
        if example is not None:
            yield example
