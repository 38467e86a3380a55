"""Columns of tables and fields of records: their usual names, and the user's. Case, spaces and _ do not matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from corpus.errors import DataError

COLUMNS: dict[str, tuple[str, ...]] = {  # field -> usual names of its column, as `_key` returns them
    "image": (
        "file_name", "filename", "image", "image_path", "file_path", "filepath", "image_file", "image_name", "file", "path",
        "image_filename", "image_file_name", "img", "img_path", "img_name", "img_file", "imagepath", "imagename", "images",
        "photo",
    ),
    "caption": (
        "captions", "caption", "text", "texts", "sentences", "sentence", "comment", "comments", "description", "descriptions",
        "raw", "image_caption", "caption_text",
    ),
    "split": ("split", "coco_split", "set", "subset"),
    "language": ("languages", "language", "lang", "locale"),
    "id": ("image_id",),
    "boxes": ("boxes",),
}  # fmt: skip
_NUMBERED = re.compile(r"(.*?)_?(\d+)")


def columns_of(names: Iterable[str], chosen: Mapping[str, str], origin: str) -> dict[str, list[str]]:
    """Return the columns of each field, an empty list if there is none. Captions may have several: caption_0, caption_1.

    `chosen` has the columns that the user named. Raises DataError if there is no column for images, or if a chosen column does
    not exist.
    """
    names = [name for name in names if name]
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(_key(name), name)
    columns: dict[str, list[str]] = {}
    for field, usual in COLUMNS.items():
        if field in chosen:
            column = chosen[field] if chosen[field] in names else by_key.get(_key(chosen[field]))
            if column is None:
                raise DataError(
                    f"{origin} has no column {chosen[field]!r}; it has {', '.join(map(repr, names))}: name one of these"
                )
            columns[field] = [column]
        else:
            columns[field] = [by_key[key] for key in usual if key in by_key][:1]
    if "caption" not in chosen:
        columns["caption"] += _numbered(names, columns["caption"])
    if not columns["image"]:
        raise DataError(
            f"{origin} has no column for image files; it has {', '.join(map(repr, names)) or 'none'}: "
            "name them, as in csv:PATH?image=COLUMN&caption=COLUMN"
        )
    return columns


def value_in(values: Mapping[str, Any], columns: list[str]) -> Any:
    """Return the value of a field with one column, None if it has none."""
    return values.get(columns[0]) if columns else None


def _numbered(names: list[str], single: list[str]) -> list[str]:
    """Return the numbered columns of captions in the order of their numbers; only those of `single` if that has a column."""
    stems = {_key(name) for name in single} or set(COLUMNS["caption"])
    matches = [(name, match) for name in names if (match := _NUMBERED.fullmatch(_key(name))) and match[1] in stems]
    return [name for name, _ in sorted(matches, key=lambda pair: int(pair[1][2]))]


def _key(name: str) -> str:
    """Return a name for comparisons: lower case, with _ for spaces and hyphens, without quotes and byte order marks around it."""
    return re.sub(r"[\s_-]+", "_", name.strip("\ufeff \t\r\n\"'").casefold())
