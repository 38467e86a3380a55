"""Rows with a picture and one or several captions, joined by picture: what CSV, JSON lines and lists of records share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, Member, NamedBox
from corpus.formats.files import (
    Reading,
    boxes_of,
    find_picture,
    id_of,
    missing_picture,
    split_name,
    split_of_name,
    texts_of,
    without_ending,
)

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

Locate = Callable[[str], Path | Member | None]  # a picture's name -> where it is


@dataclass(frozen=True, slots=True)
class Row:
    """One record: where it stands, its values by column, and what its file tells about all of them."""

    where: str
    values: dict[str, Any]
    folder: Path  # that its picture lies in
    file: str = ""  # name of the file, which may tell the split
    language: str = ""
    prefix: str = ""  # of ids that are made of the picture's name


@dataclass(slots=True)
class _Gathered:
    """An example that is being joined of its rows."""

    where: str
    split: str
    picture: tuple[Path, str]  # folder and name
    image: Path | Member
    references: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    objects: tuple[NamedBox, ...] = ()


def join_rows(rows: Iterable[Row], reading: Reading, locate: Locate | None = None) -> Iterator[Example]:
    """Join rows by picture, in the order of their first rows; the id is `image_id`, else the picture's name without ending.

    `locate` finds pictures in shards; without it they are files. All captions are held, no picture is. A bad row is a fault
    that names it, and so is data without any column for captions.
    """
    found: dict[str, _Gathered] = {}
    has_captions, last = False, None
    for last in rows:
        with reading.faults:
            has_captions |= bool(_gather(found, last, reading, locate))
    with reading.faults:
        if found and not has_captions and last is not None:
            raise DataError(
                f"{last.where} and all others have no column for captions; they have {', '.join(map(repr, last.values))}: "
                "name it, as in jsonl:PATH?caption=COLUMN"
            )
    for image_id, entry in found.items():
        texts, languages, sources = (tuple(values) for values in (entry.references, entry.languages, entry.sources))
        yield Example(entry.image, texts, entry.split, image_id, languages, entry.objects, entry.where, sources)


def tells_split(path: Path) -> str:
    """Return the name that may tell a file's split: of metadata.jsonl and metadata.csv their folder's, if it is a split's."""
    if path.stem != "metadata":
        return path.name
    return path.parent.name if split_name(path.parent.name) in ("train", "val", "test") else ""


def rows_prefix(path: Path, paths: list[Path]) -> str:
    """Return what ids of a file begin with: its folder's name, where files of several folders are read together."""
    return f"{path.parent.name}/" if len({other.parent for other in paths}) > 1 else ""


def columns_of(names: Iterable[str], told: dict[str, str], where: str) -> dict[str, str]:
    """Return which column holds what. Raises DataError where there is none for pictures or a told one is missing."""
    names = list(names)
    if wrong := sorted(set(told) - set(COLUMNS)):
        raise DataError(f"{wrong[0]!r} is nothing that a column holds here; name columns for {', '.join(COLUMNS)}")
    if absent := [column for column in told.values() if column not in names]:
        raise DataError(f"{where} has no column {absent[0]!r}; it has {', '.join(map(repr, names))}: name one of these")
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


def _gather(found: dict[str, _Gathered], row: Row, reading: Reading, locate: Locate | None) -> str:
    """Add a row to what was found; returns the name of its column for captions, "" where it has none."""
    column = columns_of(row.values, reading.columns, row.where)
    value = {what: row.values.get(name) if name else None for what, name in column.items()}
    name = _text(value["image"], column["image"], row.where)
    if not name:
        raise DataError(f"{row.where} names no picture; its column {column['image']!r} is empty")
    told = _text(value["split"] or "", column["split"], row.where)
    split = split_name(told) if told else split_of_name(row.file, name.partition("/")[0] if "/" in name else "")
    image_id = id_of(value["id"], row.where) or row.prefix + without_ending(name)
    texts = [] if value["caption"] is None else texts_of(value["caption"], row.where)
    languages = languages_of(value["language"] or row.language, len(texts), row.where)
    objects = boxes_of(value["boxes"] or [], row.where)
    entry = found.get(image_id)
    if entry is None:
        image = locate(name) if locate else find_picture([row.folder], name, split)
        if image is None and reading.need_images:
            raise DataError(missing_picture(name, row.where, None if locate else row.folder))
        entry = found[image_id] = _Gathered(row.where, split, (row.folder, name), image or row.folder / name)
    if entry.split != split:
        raise DataError(f"{row.where}: {image_id!r} is in {split!r}, and in {entry.split!r} by {entry.where}; choose one split")
    if entry.picture != (row.folder, name):
        raise DataError(
            f"{row.where}: {image_id!r} is the picture {name!r}, and {entry.picture[1]!r} by {entry.where}; "
            "give each an 'image_id' of its own"
        )
    entry.references += texts
    entry.languages += languages
    entry.sources += [row.where] * len(texts)
    entry.objects = entry.objects or objects
    return column["caption"]


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {column!r} is {value!r}; it must be a text")
    return value
