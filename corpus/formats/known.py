"""The formats by name: what each can hold, and how they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.coco import read_coco, write_coco
from corpus.formats.csv_rows import read_csv, write_csv
from corpus.formats.files import PICTURES, Reading, json_document
from corpus.formats.flickr8k import read_flickr8k, write_flickr8k
from corpus.formats.json_lines import read_json_lines, write_json_lines
from corpus.formats.karpathy import read_karpathy, write_karpathy
from corpus.formats.samples import read_samples, write_samples
from corpus.formats.shards import read_shards, write_shards
from corpus.formats.sidecar import read_sidecar, write_sidecar
from corpus.formats.writing import NewFolder

# What some formats can hold and others cannot; every format holds pictures, ids and captions of one line.
SPLITS, LANGUAGES, BOXES = "any split", "languages", "boxes"
SILENT, BREAKS, EMPTY = "pictures without captions", "line breaks", "empty captions"


@dataclass(frozen=True, slots=True)
class Format:
    """A way in which people keep captioned pictures. A folder is told by a file of one of the `marks`."""

    name: str
    read: Callable[[list[Path], Reading], Iterator[Example]]  # of the files that `told` returned
    write: Callable[[Iterable[Example], NewFolder], None]
    holds: frozenset[str]
    marks: tuple[str, ...]


def _read_both(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read captions files and shards, told apart by their endings."""
    shards = [path for path in paths if path.suffix == ".tar"]
    return read_shards([path for path in paths if path.suffix != ".tar"], shards, reading)


_ASIDE = ".lemma.token.txt"  # Flickr8k's captions once more, in base forms
_EVERYTHING = frozenset({SPLITS, LANGUAGES, BOXES, SILENT, BREAKS, EMPTY})

FORMATS = {
    entry.name: entry
    for entry in (
        Format("shards", _read_both, write_shards, _EVERYTHING, ()),
        Format("webdataset", read_samples, write_samples, _EVERYTHING, ("*.tar",)),
        Format("jsonl", read_json_lines, write_json_lines, _EVERYTHING, ("metadata.jsonl", "*/metadata.jsonl", "*.jsonl")),
        Format("coco", read_coco, write_coco, _EVERYTHING, ("captions*.json", "annotations/captions*.json")),
        Format("karpathy", read_karpathy, write_karpathy, _EVERYTHING - {BOXES}, ("dataset*.json",)),
        Format(
            "csv",
            read_csv,
            write_csv,
            frozenset({SPLITS, LANGUAGES, SILENT, BREAKS}),
            ("metadata.csv", "*/metadata.csv", "*.csv", "*.tsv"),
        ),
        Format("flickr8k", read_flickr8k, write_flickr8k, frozenset(), ("*token.txt", "*.token")),
        Format("sidecar", read_sidecar, write_sidecar, frozenset({LANGUAGES, SILENT}), ()),
    )
}


def told(data: str) -> tuple[Format, list[Path], dict[str, str]]:
    """Return the format of `PATH`, `FORMAT:PATH` or `FORMAT:PATH?image=COLUMN&caption=COLUMN`, its files and the columns.

    Raises DataError where there is nothing, or nothing that can be told.
    """
    kind, text, columns = "", data, {}
    name, _, rest = data.partition(":")
    if rest and name in FORMATS:
        has_columns = "=" in rest.rpartition("?")[2] and not Path(rest).exists()
        text, _, query = rest.rpartition("?") if has_columns else (rest, "", "")
        kind = name
        for part in filter(None, query.split("&")):
            what, _, column = part.partition("=")
            columns[what] = column
    paths = [Path(part) for part in _expanded(text)]
    if missing := [path for path in paths if not path.exists()]:
        if not kind and "?" in data and Path(data.rpartition("?")[0]).exists():
            raise DataError(f"{data!r} names columns but no format; say csv:{data} or jsonl:{data}")
        if not kind and rest and name.isalnum():
            raise DataError(f"{name!r} is no format of data on disk; {', '.join(FORMATS)} are (and scenes, places in training)")
        raise DataError(f"{str(missing[0])!r} does not exist; name a captions file or a folder with captions and pictures")
    if len(paths) > 1 or not paths[0].is_dir():
        return *_file(kind, paths), columns
    return *_folder(kind, paths[0]), columns


def _expanded(text: str) -> list[str]:
    """Return the names that braces stand for: train-{0000..0003}.tar."""
    if Path(text).exists() or "{" not in text:
        return [text]
    try:
        return list(braceexpand(text))
    except ValueError as error:
        raise DataError(f"{text!r} has braces that do not close ({error}); write train-{{0000..0003}}.tar") from error


def _file(kind: str, paths: list[Path]) -> tuple[Format, list[Path]]:
    path = paths[0]
    shards = [path.with_suffix(".tar")] if path.with_suffix(".tar").exists() else sorted(path.parent.glob("*.tar"))
    if path.suffix == ".tar" and kind in ("", "webdataset"):
        return FORMATS["webdataset"], paths
    if path.suffix == ".jsonl" and (kind == "shards" or (not kind and shards)):
        return FORMATS["shards"], [*paths, *shards]
    if not kind and path.suffix == ".json":
        document = json_document(path)
        first = document.get("images") if isinstance(document, dict) else None
        kind = "jsonl" if isinstance(document, list) else "coco"
        if isinstance(first, list) and first and isinstance(first[0], dict) and "sentences" in first[0]:
            kind = "karpathy"
    endings = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv", ".token": "flickr8k"}
    kind = kind or endings.get(path.suffix) or ("flickr8k" if path.name.endswith("token.txt") else "")
    if not kind or kind == "sidecar":
        raise DataError(f"{str(path)!r} is in no format that can be told; say FORMAT:{path}, FORMAT one of {', '.join(FORMATS)}")
    return FORMATS[kind], paths


def _folder(kind: str, path: Path) -> tuple[Format, list[Path]]:
    lines, shards = sorted(path.glob("*.jsonl")), sorted(path.glob("*.tar"))
    if kind == "shards" or (not kind and lines and shards):
        if not lines or not shards:
            raise DataError(f"{path} has {len(shards)} tar shards and {len(lines)} captions.<language>.jsonl; it needs both")
        return FORMATS["shards"], [*lines, *shards]
    marked: dict[str, list[Path]] = {}
    for entry in FORMATS.values():
        for mark in entry.marks if kind in ("", entry.name) else ():
            found = sorted(file for file in path.glob(mark) if not file.name.endswith(_ASIDE))
            if found and entry.name not in marked:
                marked[entry.name] = found
    if len(marked) > 1:
        told = ", ".join(f"{name}: {files[0].name}" for name, files in marked.items())
        raise DataError(f"{path} may be in several formats ({told}); say which, as in {next(iter(marked))}:{path}")
    for name, files in marked.items():
        return FORMATS[name], files
    pictures = kind in ("", "sidecar") and any(file.suffix.lower() in PICTURES for file in path.rglob("*"))
    if pictures and (kind or any(path.rglob("*.txt"))):
        return FORMATS["sidecar"], [path]
    wanted = ", ".join(mark for entry in FORMATS.values() for mark in entry.marks if kind in ("", entry.name))
    has = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    raise DataError(f"{path} has no captions that can be told ({wanted or 'pictures with .txt beside them'}); it has {has}")
