"""Records of an image with one or several captions, joined by image: common to CSV, JSON lines and JSON lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, NamedBox, ShardMember
from corpus.formats.fields import boxes_from, captions_from, image_id_from, languages_from
from corpus.formats.image_files import find_image, missing_image_message, without_image_suffix
from corpus.formats.read_options import ReadOptions
from corpus.formats.splits import SPLITS, normalize_split, split_from_name

COLUMNS: dict[str, tuple[str, ...]] = {  # field -> usual names of its column
    "image": (
        "file_name", "filename", "image", "image_path", "file_path", "filepath", "image_file", "image_name", "file", "path",
    ),
    "caption": ("captions", "caption", "text", "texts", "sentences", "sentence", "comment", "description"),
    "split": ("split", "coco_split", "set"),
    "language": ("languages", "language", "lang", "locale"),
    "id": ("image_id",),
    "boxes": ("boxes",),
}  # fmt: skip

Locate = Callable[[str], Path | ShardMember | None]  # name of an image -> its location


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One record: its origin, its values by column, and the properties of its file."""

    origin: str
    values: dict[str, Any]
    folder: Path  # of the file; image names are relative to it
    split_source: str = ""  # a name that may have the split
    language: str = ""
    prefix: str = ""  # of an image id that is made from the image name


@dataclass(slots=True)
class _JoinedRecord:
    """The records of one image."""

    origin: str
    split: str
    image_key: tuple[Path, str]  # folder and name
    image: Path | ShardMember
    references: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    objects: tuple[NamedBox, ...] = ()


def join_records(records: Iterable[CaptionRecord], options: ReadOptions, locate: Locate | None = None) -> Iterator[Example]:
    """Join records by image id, in the order of their first records. All captions are kept in memory, no image is.

    The image id is `image_id`, else the image name without its suffix. `locate` returns images in shards; without it, images
    are files. An invalid record is an error in `options.errors`, and so are records without any column for captions.
    """
    joined: dict[str, _JoinedRecord] = {}
    has_captions, record = False, None
    for record in records:
        with options.errors:
            has_captions |= bool(_add_record(joined, record, options, locate))
    with options.errors:
        if joined and not has_captions and record is not None:
            raise DataError(
                f"{record.origin} and all other records have no column for captions; they have "
                f"{', '.join(map(repr, record.values))}: name it, as in jsonl:PATH?caption=COLUMN"
            )
    for image_id, entry in joined.items():
        texts, languages, origins = (tuple(values) for values in (entry.references, entry.languages, entry.origins))
        yield Example(entry.image, texts, entry.split, image_id, languages, entry.objects, entry.origin, origins)


def name_with_split(path: Path) -> str:
    """Return the name that may have a file's split: for metadata.jsonl and metadata.csv that of a folder named like a split."""
    if path.stem != "metadata":
        return path.name
    return path.parent.name if normalize_split(path.parent.name) in SPLITS else ""


def id_prefix(path: Path, paths: list[Path]) -> str:
    """Return the prefix of image ids of a file: the name of its folder if files of several folders are read together."""
    return f"{path.parent.name}/" if len({other.parent for other in paths}) > 1 else ""


def columns_of(names: Iterable[str], chosen: dict[str, str], origin: str) -> dict[str, str]:
    """Return the column name of each field, "" if there is none. `chosen` has the columns that the user named.

    Raises DataError if there is no column for images, or if a chosen field or column does not exist.
    """
    names = list(names)
    if unknown := sorted(set(chosen) - set(COLUMNS)):
        raise DataError(f"{unknown[0]!r} is not a field of records; name columns for {', '.join(COLUMNS)}")
    if absent := [column for column in chosen.values() if column not in names]:
        raise DataError(f"{origin} has no column {absent[0]!r}; it has {', '.join(map(repr, names))}: name one of these")
    columns = {key: next((name for name in usual if name in names), "") for key, usual in COLUMNS.items()} | chosen
    if not columns["image"]:
        raise DataError(
            f"{origin} has no column for image files; it has {', '.join(map(repr, names)) or 'none'}: "
            "name them, as in csv:PATH?image=COLUMN&caption=COLUMN"
        )
    return columns


def _add_record(joined: dict[str, _JoinedRecord], record: CaptionRecord, options: ReadOptions, locate: Locate | None) -> str:
    """Join a record with those of the same image; returns the name of its caption column, "" if it has none."""
    columns = columns_of(record.values, options.columns, record.origin)
    value = {key: record.values.get(name) if name else None for key, name in columns.items()}
    name = _string(value["image"], columns["image"], record.origin)
    if not name:
        raise DataError(f"{record.origin} has no image; its column {columns['image']!r} is empty")
    own_split = _string(value["split"] or "", columns["split"], record.origin)
    image_folder = name.partition("/")[0] if "/" in name else ""
    split = normalize_split(own_split) if own_split else split_from_name(record.split_source, image_folder)
    image_id = image_id_from(value["id"], record.origin) or record.prefix + without_image_suffix(name)
    texts = [] if value["caption"] is None else captions_from(value["caption"], record.origin)
    languages = languages_from(value["language"] or record.language, len(texts), record.origin)
    objects = boxes_from(value["boxes"] or [], record.origin)
    entry = joined.get(image_id)
    if entry is None:
        image = locate(name) if locate else find_image([record.folder], name, split)
        if image is None and options.need_images:
            raise DataError(missing_image_message(name, record.origin, None if locate else record.folder))
        entry = _JoinedRecord(record.origin, split, (record.folder, name), image or record.folder / name)
        joined[image_id] = entry
    if entry.split != split:
        raise DataError(
            f"{record.origin}: {image_id!r} is in {split!r}, but {entry.origin} has it in {entry.split!r}; choose one split"
        )
    if entry.image_key != (record.folder, name):
        raise DataError(
            f"{record.origin}: {image_id!r} is the image {name!r}, but {entry.origin} has {entry.image_key[1]!r}; "
            "give each a different 'image_id'"
        )
    entry.references += texts
    entry.languages += languages
    entry.origins += [record.origin] * len(texts)
    entry.objects = entry.objects or objects
    return columns["caption"]


def _string(value: Any, column: str, origin: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{origin}: {column!r} is {value!r}; it must be a string")
    return value
