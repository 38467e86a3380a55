"""What all readers share: text with line numbers, JSON, places of pictures, names of splits, and how reading is asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from corpus.errors import DataError, ErrorLog
from corpus.example import NamedBox
from model import Box

LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")  # a tag as BCP 47 and file names have them
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "restval": "train", "training": "train", "testing": "test"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How data is read: what becomes of faults, whether pictures must be there, and columns named by the user."""

    faults: ErrorLog = field(default_factory=ErrorLog)
    need_images: bool = True
    columns: dict[str, str] = field(default_factory=dict)  # what it holds -> the column's name; csv, tsv and jsonl only


def split_name(told: str) -> str:
    """Return a split by the name it has here: validation, valid and dev are val; restval, as papers use it, is train."""
    return _SPLITS.get(told.strip().lower(), told.strip())


def split_of_name(name: str, *others: str) -> str:
    """Return the split that the name of a file or folder tells: captions_val2017.json is val.

    The first of the names that tells one counts; train where none does.
    """
    for told in (name, *others):
        found = re.search(r"(?<![a-z])(val|valid|validation|dev|test|testing|train|training)(?![a-z])", told.lower())
        if found:
            return split_name(found.group())
    return "train"


def without_ending(name: str) -> str:
    """Return a picture's name without the ending of its format; any other ending belongs to the name."""
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix.lower() in PICTURES else name


def text_lines(path: Path, faults: ErrorLog) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text in UTF-8 with their numbers, line ends kept; only a line feed ends one.

    A line that is not UTF-8 is a fault. Raises DataError where the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and may be read") from error
    with file:
        for number, line in enumerate(file, start=1):
            text = None
            with faults:
                text = _decoded(line, path, number)
            if text is not None:
                yield number, text


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number} is not UTF-8 ({error.reason}); save the file as UTF-8") from error


def json_document(path: Path) -> Any:
    """Return what a JSON file holds. Raises DataError that names the file and the place in it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and may be read") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); it may have been cut off: copy it again") from error


def table(document: Any, name: str, path: Path, kind: str) -> list[Any]:
    """Return a list of records that a JSON document must have. Raises DataError that says what it has instead."""
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        has = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise DataError(f"{path} is no {kind}: it needs a list {name!r} and has {has}; say FORMAT:PATH if it is another format")
    return list(document[name])


def value_of(record: Any, name: str, kinds: tuple[type, ...], where: str) -> Any:
    """Return a field of a record. Raises DataError that names the record."""
    if not isinstance(record, dict) or name not in record:
        raise DataError(f"{where} has no {name!r}; every record needs it")
    value = record[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join(_WORDS[kind] for kind in kinds)
        raise DataError(f"{where}: {name!r} is {_short(value)}; it must be {wanted}")
    return value


_WORDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def texts_of(value: Any, where: str) -> list[str]:
    """Return one caption or a list of them, stripped of white space at both ends. Raises DataError that names the record."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise DataError(f"{where}: captions are {_short(value)}; they must be a text or a list of texts")
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a caption holds half a character ({error.reason}); save it in UTF-8 again") from error
    return [text.strip() for text in values]


def boxes_of(value: Any, where: str) -> tuple[NamedBox, ...]:
    """Return objects of rows [x0, y0, x1, y1, class]. Raises DataError that names the record."""
    try:
        return tuple(NamedBox(str(row[4]), box_of(*row[:4])) for row in value)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(f"{where}: boxes are {_short(value)}; they must be rows of [x0, y0, x1, y1, class] in pixels") from error


def box_of(x0: Any, y0: Any, x1: Any, y1: Any) -> Box:
    """Return a box of its corners. Raises ValueError or TypeError where they are not numbers in order."""
    box = Box(float(x0), float(y0), float(x1), float(y1))
    if not (-math.inf < box.x0 <= box.x1 < math.inf and -math.inf < box.y0 <= box.y1 < math.inf):
        raise ValueError("a box's second corner is not behind its first")
    return box


def id_of(value: Any, where: str) -> str | None:
    """Return an image id, which is a text or a whole number, None where there is none. Raises DataError that names the record."""
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{where}: the image id is {_short(value)}; it must be a text or a whole number")
    return str(value)


def language_of(record: dict[str, Any], where: str) -> str:
    """Return a record's `language`, "" where it is not told. Raises DataError that names the record."""
    value = record.get("language")
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: 'language' is {_short(value)}; it must be a tag such as en or zh-TW")
    return value or ""


def find_picture(roots: list[Path], name: str, split: str) -> Path | None:
    """Return where a picture lies: under one of the roots, its images/ or a folder named like the split."""
    for root in roots if name else ():
        for place in (root, root / "images", root / split, root / f"{split}2017", root / f"{split}2014"):
            try:
                if (place / name).is_file():
                    return place / name
            except (OSError, ValueError):  # too long for a file's name, or no characters of one
                return None
    return None


def missing_picture(name: str, where: str, folder: Path | None) -> str:
    """Return the message for a picture that is not there; no folder: it should be in a shard."""
    if folder is None:
        return f"{where}: the picture {name!r} is in none of the shards; bring the shard that holds it"
    return f"{where}: the picture {name!r} is not in {folder}, its images/ or a folder named like the split; put it there"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
