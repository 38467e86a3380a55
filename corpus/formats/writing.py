"""What all writers share: a folder that appears whole or not at all, names of pictures, what a format cannot hold."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import LANGUAGE, PICTURES
from model import sniff_format

_SAFE = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|.][^\x00-\x1f\x7f/\\:*?\"<>|]*")  # a file name on every system
_LONGEST = 200  # bytes of a name; a file system takes 255
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


class NewFolder:
    """A folder that is written beside its place and put there when all is written: `with NewFolder(path) as folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.partial = self.path

    def __enter__(self) -> NewFolder:
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise DataError(f"{self.path} exists and is not empty; name a new folder")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written ({error.strerror}); name another place") from error
        # Its own name, whoever else writes to the same place.
        self.partial = self.path.with_name(f".{self.path.name[:50]}.{secrets.token_hex(8)}.partial")
        try:
            self.partial.mkdir()
        except OSError as error:
            raise DataError(f"{self.path} cannot be written ({error.strerror}); name another place") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.partial.replace(self.path)  # an empty folder there is replaced, a full one is not
        except OSError as failed:
            raise DataError(f"{self.path} cannot be put there ({failed.strerror}); name a new folder") from failed
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    def open(self, name: str, *, newline: str | None = "\n") -> IO[str]:
        """Open a text file of the folder, in UTF-8, for writing."""
        path = self.partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", newline=newline)

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON document."""
        with self.open(name) as file:
            json.dump(document, file, ensure_ascii=False)

    def picture(self, example: Example, number: int, folder: str, *, by_id: bool = False) -> str:
        """Write an example's picture as it is; returns its name in the new folder.

        It is named like the image id where that is a file name on every system, else by its number; with `by_id` the
        name is all that tells the id. Raises DataError where the name cannot be, or the picture cannot be read.
        """
        stem = picture_stem(example) if by_id or _is_file_name(example.image_id) else f"{number:09d}"
        data = read_picture_of(example)
        place = self.partial / folder / f"{stem}{ending_of(example, data)}"
        if place.exists():
            raise DataError(f"two pictures would be named {place.name!r} in {folder!r}; convert to another format")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return f"{folder}/{place.name}"


def picture_stem(example: Example) -> str:
    """Return the image id as the name of a file. Raises DataError where it cannot be one."""
    if not _is_file_name(example.image_id):
        raise DataError(f"the image id {example.image_id!r} cannot be the name of a file; convert to coco or jsonl instead")
    return example.image_id


def numbered(examples: Iterable[Example]) -> Iterator[tuple[int, Example]]:
    """Number the examples, and hold that their splits and languages can be parts of files' names."""
    for number, example in enumerate(examples):
        for language in set(example.languages):
            if language and not LANGUAGE.fullmatch(language):
                raise DataError(
                    f"image {example.image_id!r} has a caption in {language!r}; a language is a tag such as en or zh-TW"
                )
        if not re.fullmatch(r"[\w-]{1,60}", example.split):
            raise DataError(f"image {example.image_id!r} is in the split {example.split!r}; a split is letters, digits, - and _")
        yield number, example


def record_of(example: Example) -> dict[str, Any]:
    """Return an example's fields but its picture, as JSON has them here; boxes and languages only where there are any."""
    record: dict[str, Any] = {"image_id": example.image_id, "split": example.split, "captions": list(example.references)}
    if any(example.languages):
        record["languages"] = list(example.languages)
    if example.objects:
        record["boxes"] = [[entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1, entry.name] for entry in example.objects]
    return record


def read_picture_of(example: Example) -> bytes:
    """Return the bytes of an example's picture. Raises DataError where they cannot be read."""
    try:
        return example.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{example.place} cannot be read ({error}); nothing was written") from error


def ending_of(example: Example, data: bytes) -> str:
    """Return the ending of a picture's file: the one that it has, else what its first bytes tell."""
    name = "" if isinstance(example.image, bytes) else example.image.name
    if Path(name).suffix.lower() in PICTURES:
        return Path(name).suffix
    return _ENDINGS.get(sniff_format(data), ".jpg")


def _is_file_name(text: str) -> bool:
    return _SAFE.fullmatch(text) is not None and not text.endswith((" ", ".")) and len(text.encode()) <= _LONGEST
