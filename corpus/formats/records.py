"""Records of an image with one or several captions, joined by image: common to CSV, JSON lines and JSON lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, NamedBox, ShardMember
from corpus.formats.cells import captions_in_cell
from corpus.formats.columns import columns_of, value_in
from corpus.formats.fields import boxes_from, captions_from, image_id_from
from corpus.formats.image_files import image_roots, missing_image_message, normalize_name, without_image_suffix
from corpus.formats.read_options import ReadOptions
from corpus.formats.splits import SPLITS, normalize_split, split_from_name, split_in_name


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One record: its origin, its values by column, and the properties of its file."""

    origin: str
    values: dict[str, Any]
    path: Path  # of the file; image names are relative to its folder
    split_source: str = ""  # a name that may have the split
    language: str = ""
    prefix: str = ""  # of an image id that is made from the image name


# A record, and the name and the split of its image -> the image, None if it is missing and need not exist.
Locate = Callable[[CaptionRecord, str, str], Path | ShardMember | None]


@dataclass(slots=True)
class _JoinedRecord:
    """The records of one image."""

    origin: str
    image_id: str
    split: str
    image: Path | ShardMember
    references: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    objects: tuple[NamedBox, ...] = ()
    num_empty: int = 0  # records without a caption


_Key = tuple[Path | ShardMember, str | None]  # an image and its `image_id`: equal names in two folders are two images


def join_records(records: Iterable[CaptionRecord], options: ReadOptions, locate: Locate | None = None) -> Iterator[Example]:
    """Join records by image, in the order of their first records. All captions are kept in memory, no image is.

    The image id is `image_id`, else the image name without its suffix. `locate` returns images in shards; without it, images
    are files. An invalid record is an error in `options.errors`, and so are records without any column for captions.
    """
    joined: dict[_Key, _JoinedRecord] = {}
    columns_by_names: dict[tuple[str, ...], dict[str, list[str]]] = {}
    has_captions, record = False, None
    locate = locate or _file_locator(options)
    for record in records:
        with options.errors:
            names = tuple(record.values)
            if names not in columns_by_names:
                columns_by_names[names] = columns_of(names, options.columns, record.origin)
            has_captions |= bool(columns_by_names[names]["caption"])
            _add_record(joined, record, columns_by_names[names], options, locate)
    with options.errors:
        if joined and not has_captions and record is not None:
            raise DataError(
                f"{record.origin} and all other records have no column for captions; they have "
                f"{', '.join(map(repr, record.values))}: name it, as in jsonl:PATH?caption=COLUMN"
            )
    for entry in joined.values():
        if entry.references and entry.num_empty:
            options.errors.skip(entry.origin, f"{entry.num_empty} records of {entry.image_id!r} without a caption")
        texts, languages, origins = (tuple(values) for values in (entry.references, entry.languages, entry.origins))
        yield Example(entry.image, texts, entry.split, entry.image_id, languages, entry.objects, entry.origin, origins)


def split_source(path: Path, paths: list[Path]) -> str:
    """Return the name that may have a file's split: its own, or that of a folder named like the split.

    The folder's name counts for metadata.csv and metadata.jsonl, and if files of several folders are read together.
    """
    folder = path.parent.name if normalize_split(path.parent.name) in SPLITS else ""
    if path.stem.lower() == "metadata":
        return folder
    return folder if folder and not split_in_name(path.name) and _folders_of(paths) > 1 else path.name


def id_prefix(path: Path, paths: list[Path]) -> str:
    """Return the prefix of image ids of a file: the name of its folder if files of several folders are read together."""
    return f"{path.parent.name}/" if _folders_of(paths) > 1 else ""


def _folders_of(paths: list[Path]) -> int:
    return len({path.parent for path in paths})


def _file_locator(options: ReadOptions) -> Locate:
    """Return a function that looks for image files; it remembers them, because an image has several records."""
    located: dict[tuple[Path, str, str], Path | None] = {}

    def locate(record: CaptionRecord, name: str, split: str) -> Path | None:
        key = record.path.parent, name, split
        if key not in located:
            located[key] = options.images.find(image_roots(record.path), name, split)
        if located[key] is None and options.need_images:
            raise DataError(missing_image_message(name, record.origin, record.path.parent))
        return located[key]

    return locate


def _add_record(
    joined: dict[_Key, _JoinedRecord],
    record: CaptionRecord,
    columns: dict[str, list[str]],
    options: ReadOptions,
    locate: Locate,
) -> None:
    """Join a record with those of the same image."""
    value = {key: value_in(record.values, names) for key, names in columns.items()}
    (image_column,) = columns["image"]
    stored_name = _string(value["image"], image_column, record.origin).strip()
    name = normalize_name(stored_name)
    if not name:
        raise DataError(f"{record.origin} has no image; its column {image_column!r} is empty")
    own_split = _string(value["split"] or "", "".join(columns["split"]), record.origin)
    image_folder = name.partition("/")[0] if "/" in name else ""
    split = normalize_split(own_split) if own_split else split_from_name(record.split_source, image_folder)
    own_id = image_id_from(value["id"], record.origin)
    texts, languages = _captions_of(record, columns, options)
    objects = boxes_from(value["boxes"] or [], record.origin)
    image = locate(record, stored_name, split) or record.path.parent / stored_name
    entry = joined.get((image, own_id))
    if entry is None:
        image_id = own_id or record.prefix + without_image_suffix(name)
        entry = joined[image, own_id] = _JoinedRecord(record.origin, image_id, split, image)
    if entry.split != split:
        raise DataError(
            f"{record.origin}: {entry.image_id!r} is in {split!r}, but {entry.origin} has it in {entry.split!r}; choose one split"
        )
    entry.references += texts
    entry.languages += languages
    entry.origins += [record.origin] * len(texts)
    entry.objects = entry.objects or objects
    entry.num_empty += not texts


def _captions_of(record: CaptionRecord, columns: dict[str, list[str]], options: ReadOptions) -> tuple[list[str], list[str]]:
    """Return the captions of all columns for captions, and their languages."""
    values = [record.values.get(name) for name in columns["caption"]]
    language = value_in(record.values, columns["language"]) or record.language
    if len(values) == 1 and not isinstance(values[0], str):
        return captions_from(values[0], language, record.origin, options.errors)
    texts: list[object] = []
    for value in values:
        texts += captions_in_cell(value) if isinstance(value, str) else value if isinstance(value, list) else [value]
    return captions_from(texts, language, record.origin, options.errors)


def _string(value: Any, column: str, origin: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{origin}: {column!r} is {value!r}; it must be a string")
    return value
