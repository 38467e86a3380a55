"""Rows with a picture and one or several captions, joined by picture: what CSV, JSON lines and lists of records share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, Member, NamedBox
from corpus.formats.files import Reading, boxes_of, find_picture, missing_picture, split_name, texts_of, without_ending

COLUMNS: dict[str, tuple[str, ...]] = {  # what a row holds, and what people call the column for it
    "image": (
        "file_name", "filename", "image", "image_path", "file_path", "filepath", "image_file", "image_name", "file", "path",
    ),
    "caption": ("captions", "caption", "text", "texts", "sentences", "sentence", "comment", "description"),
    "split": ("split", "coco_split", "set"),
    "language": ("languages", "language", "lang", "locale"),
    "id": ("image_id",),
    "boxes": ("boxes",),
}  # fmt: skip

Locate = Callable[[str, str], Path | Member | None]  # a picture's name and split -> where it is


@dataclass(frozen=True, slots=True)
class Row:
    """One record: where it stands, its values by column, and what its file tells about all of them."""

    where: str
    values: dict[str, Any]
    split: str = "train"
    language: str = ""
    roots: tuple[Path, ...] = ()  # folders that its picture is looked for in


@dataclass(slots=True)
class _Gathered:
    """An example that is being joined of its rows."""

    where: str
    split: str
    image: Path | Member
    references: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    objects: tuple[NamedBox, ...] = ()


def join_rows(rows: Iterable[Row], reading: Reading, locate: Locate | None = None) -> Iterator[Example]:
    """Join rows by picture, in the order of their first rows; the id is `image_id`, else the picture's name without ending.

    All captions are held, no picture is. A bad row is a fault that names it.
    """
    found: dict[str, _Gathered] = {}
    for row in rows:
        with reading.faults:
            _gather(found, row, reading, locate or _beside(row))
    for image_id, entry in found.items():
        texts, languages, sources = (tuple(values) for values in (entry.references, entry.languages, entry.sources))
        yield Example(entry.image, texts, entry.split, image_id, languages, entry.objects, entry.where, sources)


def columns_of(names: Iterable[str], told: dict[str, str], where: str) -> dict[str, str]:
    """Return which column holds what. Raises DataError where there is none for pictures or a told one is missing."""
    names = list(names)
    if wrong := sorted(set(told) - set(COLUMNS)):
        raise DataError(f"{wrong[0]!r} is nothing that a column holds here; name columns for {', '.join(COLUMNS)}")
    if absent := [column for column in told.values() if column not in names]:
        raise DataError(f"{where} has no column {absent[0]!r}; it has {', '.join(map(repr, names))}")
    found = {what: next((name for name in known if name in names), "") for what, known in COLUMNS.items()} | told
    if not found["image"]:
        raise DataError(
            f"{where} has no column for the picture's file; it has {', '.join(map(repr, names)) or 'none'}: "
            "name them, as in csv:PATH?image=COLUMN&caption=COLUMN"
        )
    return found


def languages_of(value: Any, texts: int, where: str) -> list[str]:
    """Return one language a caption of one for all, a list, or none. Raises DataError that names the record."""
    values = [value or ""] * texts if value is None or isinstance(value, str) else value
    if not isinstance(values, list) or len(values) != texts or not all(isinstance(tag, str) for tag in values):
        raise DataError(f"{where}: languages are {value!r}; they must be one tag, or a list of one for each caption")
    return values


def _gather(found: dict[str, _Gathered], row: Row, reading: Reading, locate: Locate) -> None:
    column = columns_of(row.values, reading.columns, row.where)
    value = {what: row.values.get(name) if name else None for what, name in column.items()}
    name = _text(value["image"], column["image"], row.where)
    split = split_name(_text(value["split"] or row.split, column["split"], row.where))
    image_id = str(value["id"]) if value["id"] not in (None, "") else without_ending(name)
    if not image_id:
        raise DataError(f"{row.where} names no picture; its column {column['image']!r} is empty")
    texts = [] if value["caption"] is None else texts_of(value["caption"], row.where)
    languages = languages_of(value["language"] or row.language, len(texts), row.where)
    objects = boxes_of(value["boxes"] or [], row.where)
    entry = found.get(image_id)
    if entry is None:
        image = locate(name, split)
        if image is None and reading.need_images:
            raise DataError(missing_picture(name, row.where, row.roots[0] if row.roots else None))
        entry = found[image_id] = _Gathered(row.where, split, image or Path(name))
    if entry.split != split:
        raise DataError(f"{row.where}: {image_id!r} is in {split!r}, and in {entry.split!r} by {entry.where}; choose one split")
    entry.references += texts
    entry.languages += languages
    entry.sources += [row.where] * len(texts)
    entry.objects = entry.objects or objects


def _beside(row: Row) -> Locate:
    return lambda name, split: find_picture(list(row.roots), name, split)


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {column!r} is {value!r}; it must be a text")
    return value
