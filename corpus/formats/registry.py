"""The formats by name: the features that each supports, and the detection of a format from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.coco import read_coco, write_coco
from corpus.formats.csv_files import read_csv, write_csv
from corpus.formats.flickr8k import read_flickr8k, write_flickr8k
from corpus.formats.image_files import IMAGE_SUFFIXES
from corpus.formats.json_lines import read_json_lines, write_json_lines
from corpus.formats.karpathy import read_karpathy, write_karpathy
from corpus.formats.read_options import ReadOptions
from corpus.formats.shards import read_shards, write_shards
from corpus.formats.sidecar import read_sidecar, write_sidecar
from corpus.formats.text_files import json_document
from corpus.formats.webdataset_samples import read_samples, write_samples
from corpus.formats.writer import NewFolder

# Features that only some formats support. Every format supports images, ids and captions of one line.
ANY_SPLIT, LANGUAGES, BOXES = "any split", "languages", "boxes"
NO_CAPTIONS, LINE_BREAKS, EMPTY_CAPTIONS = "images without captions", "line breaks", "empty captions"
ALL_FEATURES = frozenset({ANY_SPLIT, LANGUAGES, BOXES, NO_CAPTIONS, LINE_BREAKS, EMPTY_CAPTIONS})

_LEMMA_SUFFIX = ".lemma.token.txt"  # Flickr8k's lemmatized captions, a copy of the others


@dataclass(frozen=True, slots=True)
class Format:
    """A format of captioned images. A folder has the format if one of the `patterns` matches a file in it."""

    name: str
    read: Callable[[list[Path], ReadOptions], Iterator[Example]]  # reads the files that `detect_format` returned
    write: Callable[[Iterable[Example], NewFolder], None]
    features: frozenset[str]
    patterns: tuple[str, ...]


FORMATS = {
    entry.name: entry
    for entry in (
        Format("shards", read_shards, write_shards, ALL_FEATURES, ()),
        Format("webdataset", read_samples, write_samples, ALL_FEATURES, ("*.tar",)),
        Format("jsonl", read_json_lines, write_json_lines, ALL_FEATURES, ("metadata.jsonl", "*/metadata.jsonl", "*.jsonl")),
        Format("coco", read_coco, write_coco, ALL_FEATURES, ("captions*.json", "annotations/captions*.json")),
        Format("karpathy", read_karpathy, write_karpathy, ALL_FEATURES - {BOXES}, ("dataset*.json",)),
        Format(
            "csv",
            read_csv,
            write_csv,
            frozenset({ANY_SPLIT, LANGUAGES, NO_CAPTIONS, LINE_BREAKS}),
            ("metadata.csv", "*/metadata.csv", "*.csv", "*.tsv"),
        ),
        Format("flickr8k", read_flickr8k, write_flickr8k, frozenset(), ("*token.txt", "*.token")),
        Format("sidecar", read_sidecar, write_sidecar, frozenset({LANGUAGES, NO_CAPTIONS}), ()),
    )
}


def detect_format(data: str) -> tuple[Format, list[Path], dict[str, str]]:
    """Return the format of `PATH`, `FORMAT:PATH` or `FORMAT:PATH?image=COLUMN&caption=COLUMN`, its files and the columns.

    Raises DataError if the path does not exist, or if its format is unknown or ambiguous.
    """
    kind, text, columns = "", data, {}
    name, _, rest = data.partition(":")
    if rest and name in FORMATS:
        has_columns = "=" in rest.rpartition("?")[2] and not Path(rest).exists()
        text, _, query = rest.rpartition("?") if has_columns else (rest, "", "")
        kind = name
        for part in filter(None, query.split("&")):
            field, _, column = part.partition("=")
            columns[field] = column
    paths = [Path(part) for part in _expand_braces(text)]
    if missing := [path for path in paths if not path.exists()]:
        if not kind and "?" in data and Path(data.rpartition("?")[0]).exists():
            raise DataError(f"{data!r} names columns but no format; write csv:{data} or jsonl:{data}")
        if not kind and rest and name.isalnum():
            raise DataError(
                f"{name!r} is not a format of files; use one of {', '.join(FORMATS)} (training also has scenes and positions)"
            )
        raise DataError(f"{str(missing[0])!r} does not exist; name a captions file or a folder with captions and images")
    if len(paths) > 1 or not paths[0].is_dir():
        return *_format_of_files(kind, paths), columns
    return *_format_of_folder(kind, paths[0]), columns


def _expand_braces(text: str) -> list[str]:
    """Return the paths of a pattern such as train-{0000..0003}.tar."""
    if Path(text).exists() or "{" not in text:
        return [text]
    try:
        return list(braceexpand(text))
    except ValueError as error:
        raise DataError(f"{text!r} has unbalanced braces ({error}); write train-{{0000..0003}}.tar") from error


def _format_of_files(kind: str, paths: list[Path]) -> tuple[Format, list[Path]]:
    path = paths[0]
    shards = [path.with_suffix(".tar")] if path.with_suffix(".tar").exists() else sorted(path.parent.glob("*.tar"))
    if path.suffix == ".tar" and kind in ("", "webdataset"):
        return FORMATS["webdataset"], paths
    if path.suffix == ".jsonl" and (kind == "shards" or (not kind and shards)):
        return FORMATS["shards"], [*paths, *shards]
    if not kind and path.suffix == ".json":
        document = json_document(path)
        images = document.get("images") if isinstance(document, dict) else None
        kind = "jsonl" if isinstance(document, list) else "coco"
        if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
            kind = "karpathy"
    by_suffix = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv", ".token": "flickr8k"}
    kind = kind or by_suffix.get(path.suffix) or ("flickr8k" if path.name.endswith("token.txt") else "")
    if not kind or kind == "sidecar":
        raise DataError(f"{str(path)!r} has an unknown format; write FORMAT:{path}, with one of {', '.join(FORMATS)}")
    return FORMATS[kind], paths


def _format_of_folder(kind: str, path: Path) -> tuple[Format, list[Path]]:
    json_lines, shards = sorted(path.glob("*.jsonl")), sorted(path.glob("*.tar"))
    if kind == "shards" or (not kind and json_lines and shards):
        if not json_lines or not shards:
            raise DataError(f"{path} has {len(shards)} tar shards and {len(json_lines)} captions.<language>.jsonl; it needs both")
        return FORMATS["shards"], [*json_lines, *shards]
    matches: dict[str, list[Path]] = {}
    for entry in FORMATS.values():
        for pattern in entry.patterns if kind in ("", entry.name) else ():
            files = sorted(file for file in path.glob(pattern) if not file.name.endswith(_LEMMA_SUFFIX))
            if files and entry.name not in matches:
                matches[entry.name] = files
    if len(matches) > 1:
        names = ", ".join(f"{name}: {files[0].name}" for name, files in matches.items())
        raise DataError(f"{path} may be in several formats ({names}); choose one, as in {next(iter(matches))}:{path}")
    for name, files in matches.items():
        return FORMATS[name], files
    has_images = kind in ("", "sidecar") and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))
    if has_images and (kind or any(path.rglob("*.txt"))):
        return FORMATS["sidecar"], [path]
    expected = ", ".join(pattern for entry in FORMATS.values() for pattern in entry.patterns if kind in ("", entry.name))
    content = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "no files"
    raise DataError(
        f"{path} has no captions in a known format; expected {expected or 'images with .txt next to them'}, but it has {content}"
    )
