"""Parts of all writers: a new folder that appears complete or not at all, file names of images, records of examples."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.fields import LANGUAGE_TAG
from model import IMAGE_SUFFIXES, read_reason, sniff_format

_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|.][^\x00-\x1f\x7f/\\:*?\"<>|]*")  # valid on every operating system
_SPLIT_NAME = re.compile(r"[\w-]{1,60}")
_MAX_NAME = 200  # bytes; file systems allow 255
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


class NewFolder:
    """Context manager for a new folder: `with NewFolder(path) as folder`.

    Files are written to a temporary folder next to `path`, which is renamed at the end. After an error nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.partial = self.path

    def __enter__(self) -> NewFolder:
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise DataError(f"{self.path} exists and is not empty; name a new folder")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written ({error.strerror}); name another folder") from error
        # A random name: another process may write to the same path.
        self.partial = self.path.with_name(f".{self.path.name[:50]}.{secrets.token_hex(8)}.partial")
        try:
            self.partial.mkdir()
        except OSError as error:
            raise DataError(f"{self.path} cannot be written ({error.strerror}); name another folder") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.partial.replace(self.path)  # replaces an empty folder, fails for any other
        except OSError as failure:
            raise DataError(f"{self.path} cannot be created ({failure.strerror}); name a new folder") from failure
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    def open(self, name: str, *, newline: str | None = "\n") -> IO[str]:
        """Open a UTF-8 text file of the folder for writing."""
        path = self.partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", newline=newline)

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON document."""
        with self.open(name) as file:
            json.dump(document, file, ensure_ascii=False)

    def write_image(self, example: Example, number: int, folder: str, *, by_id: bool = False) -> str:
        """Copy the image of an example without change, and return its path in the new folder.

        The file name is the image id if it is a valid file name, else `number`; with `by_id` it is always the image id.
        Raises DataError if the image id is not a valid file name, if the file exists, or if the image cannot be read.
        """
        stem = image_stem(example) if by_id or _is_file_name(example.image_id) else f"{number:09d}"
        data = read_image(example)
        path = self.partial / folder / f"{stem}{image_suffix(example, data)}"
        if path.exists():
            raise DataError(f"two images have the file name {path.name!r} in {folder!r}; convert to another format")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"{folder}/{path.name}"


def image_stem(example: Example) -> str:
    """Return the image id as a file name without suffix. Raises DataError if it is not a valid file name."""
    if not _is_file_name(example.image_id):
        raise DataError(f"the image id {example.image_id!r} is not a valid file name; convert to coco or jsonl instead")
    return example.image_id


def with_own_id(example: Example) -> Example:
    """Return the example with the id that its data had, if the split was put before it: for formats with a folder per split."""
    is_same = example.image_id == f"{example.split}/{example.own_id}"
    return replace(example, image_id=example.own_id) if is_same else example


def enumerate_valid(examples: Iterable[Example]) -> Iterator[tuple[int, Example]]:
    """Yield the examples with their numbers. Raises DataError if a split or language cannot be a part of a file name."""
    for number, example in enumerate(examples):
        for language in set(example.languages):
            if language and not LANGUAGE_TAG.fullmatch(language):
                raise DataError(
                    f"image {example.image_id!r} has a caption in {language!r}; a language is a tag such as en or zh-TW"
                )
        if not _SPLIT_NAME.fullmatch(example.split):
            raise DataError(f"image {example.image_id!r} is in the split {example.split!r}; a split has letters, digits, - and _")
        yield number, example


def example_record(example: Example) -> dict[str, Any]:
    """Return an example without its image as a JSON object; it has languages and boxes only if the example has some."""
    record: dict[str, Any] = {"image_id": example.image_id, "split": example.split, "captions": list(example.references)}
    if any(example.languages):
        record["languages"] = list(example.languages)
    if example.objects:
        record["boxes"] = [[entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1, entry.name] for entry in example.objects]
    return record


def read_image(example: Example) -> bytes:
    """Return the bytes of an example's image file. Raises DataError if it cannot be read."""
    try:
        return example.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{example.location} cannot be read ({read_reason(error)}); nothing was written") from error


def image_suffix(example: Example, data: bytes) -> str:
    """Return the suffix of an image file: its own, else that of the format of `data`, else .jpg."""
    name = "" if isinstance(example.image, bytes) else example.image.name
    if Path(name).suffix.lower() in IMAGE_SUFFIXES:
        return Path(name).suffix
    return _SUFFIXES.get(sniff_format(data), ".jpg")


def _is_file_name(text: str) -> bool:
    return _FILE_NAME.fullmatch(text) is not None and not text.endswith((" ", ".")) and len(text.encode()) <= _MAX_NAME
