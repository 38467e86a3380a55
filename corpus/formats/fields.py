"""Fields of records, validated: captions, languages, image ids and boxes. An error names the record by its `origin`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from corpus.errors import DataError, ErrorLog
from corpus.example import NamedBox
from model import Box

LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")  # BCP 47, also with "_"
_TYPE_NAMES = {str: "a string", int: "an integer", list: "a list", dict: "an object"}
_MAX_REPR = 60  # characters of a value in a message


def list_of(document: Any, name: str, path: Path, kind: str) -> list[Any]:
    """Return the list `name` of a JSON document. Raises DataError if the document does not have it."""
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        content = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise DataError(
            f"{path} is not a {kind}: it needs a list {name!r} and has {content}; write FORMAT:PATH if it is another format"
        )
    return list(document[name])


def value_of(record: Any, name: str, types: tuple[type, ...], origin: str) -> Any:
    """Return a field of a record. Raises DataError if it is missing or has another type; bool is not an integer here."""
    if not isinstance(record, dict) or name not in record:
        raise DataError(f"{origin} has no {name!r}; every record needs it")
    value = record[name]
    if not isinstance(value, types) or isinstance(value, bool):
        expected = " or ".join(_TYPE_NAMES[kind] for kind in types)
        raise DataError(f"{origin}: {name!r} is {_short_repr(value)}; it must be {expected}")
    return value


def is_null(record: Any, name: str) -> bool:
    """Return whether a record has the field, and its value is null or NaN."""
    return isinstance(record, dict) and name in record and (record[name] is None or record[name] != record[name])


def captions_from(value: Any, languages: Any, origin: str, errors: ErrorLog) -> tuple[list[str], list[str]]:
    """Return the captions of one text, a list of texts or None, and their languages: one tag for all, or a list of tags.

    White space and a byte order mark at the ends are removed. None, NaN and an empty text are no caption: in a list with
    captions they are `errors.skipped`. Raises DataError if a value has another type.
    """
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) or text is None or text != text for text in values):  # NaN is not equal to itself
        raise DataError(f"{origin}: captions are {_short_repr(value)}; they must be a string or a list of strings")
    tags = [languages or ""] * len(values) if languages is None or isinstance(languages, str) else languages
    if not isinstance(tags, list) or len(tags) != len(values) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f"{origin}: languages are {languages!r}; they must be one tag, or a list with one tag per caption")
    texts = [clean_caption(text, origin) if isinstance(text, str) else "" for text in values]
    kept = [index for index, text in enumerate(texts) if text]
    if kept and len(kept) < len(texts):
        errors.skip(origin, f"{len(texts) - len(kept)} empty of {len(texts)} captions")
    return [texts[index] for index in kept], [tags[index] for index in kept]


def clean_caption(text: str, origin: str) -> str:
    """Return a caption without white space and byte order marks at its ends. Raises DataError if it cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{origin}: a caption has an unpaired surrogate ({error.reason}); save it as UTF-8 again") from error
    if "\0" in text:
        raise DataError(f"{origin}: a caption has a NUL character; remove it")
    return text.strip().strip("\ufeff").strip()


def language_from(record: dict[str, Any], origin: str) -> str:
    """Return the `language` of a record, "" if it has none. Raises DataError if it is not a string."""
    value = record.get("language")
    if value is not None and not isinstance(value, str):
        raise DataError(f"{origin}: 'language' is {_short_repr(value)}; it must be a tag such as en or zh-TW")
    return value or ""


def image_id_from(value: Any, origin: str) -> str | None:
    """Return an image id as a string, None if the value is None or "". Raises DataError if it is not a string or an integer."""
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{origin}: the image id is {_short_repr(value)}; it must be a string or an integer")
    return str(value)


def boxes_from(value: Any, origin: str) -> tuple[NamedBox, ...]:
    """Return the boxes of rows [x0, y0, x1, y1, class]. Raises DataError if a row is invalid."""
    try:
        return tuple(NamedBox(str(row[4]), box_from_corners(*row[:4])) for row in value)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"{origin}: boxes are {_short_repr(value)}; they must be rows of [x0, y0, x1, y1, class] in pixels"
        ) from error


def box_from_corners(x0: Any, y0: Any, x1: Any, y1: Any) -> Box:
    """Return a box. Raises ValueError or TypeError if the corners are not finite numbers in ascending order."""
    box = Box(float(x0), float(y0), float(x1), float(y1))
    if not (-math.inf < box.x0 <= box.x1 < math.inf and -math.inf < box.y0 <= box.y1 < math.inf):
        raise ValueError("x1 must be at least x0 and y1 at least y0, all finite")
    return box


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_REPR else f"{text[: _MAX_REPR - 3]}..."
