"""Detection of the format of a file or folder, also of folders that are packed into others, as Kaggle's are."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from corpus.errors import DataError
from corpus.formats.csv_files import is_caption_table
from corpus.formats.data_spec import check_readable_kind, parse_spec
from corpus.formats.flickr8k import is_token_file
from corpus.formats.image_files import is_system_file
from corpus.formats.registry import FORMATS, Format
from corpus.formats.sidecar import has_texts
from corpus.formats.text_files import json_document
from model import IMAGE_SUFFIXES

_LEMMA_SUFFIX = ".lemma.token.txt"  # Flickr8k's lemmatized captions, a copy of the others
_TEXT_PATTERNS = ("*caption*.txt", "*result*.txt")  # of csv and flickr8k: the first line says which it is
_MAX_DEPTH = 3  # folders above the captions file
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".token": "flickr8k", ".tar": "webdataset"}


def detect_format(data: str) -> tuple[Format, list[Path], dict[str, str]]:
    """Return the format of `PATH`, `FORMAT:PATH` or `FORMAT:PATH?OPTION=VALUE`, its files and the options.

    Raises DataError if the path does not exist, if its format is unknown or ambiguous, or if it does not have an option.
    """
    spec = parse_spec(data)
    if len(spec.paths) > 1 or not spec.paths[0].is_dir():
        return *_format_of_files(spec.kind, spec.paths), spec.options
    return *_format_of_folder(spec.kind, spec.paths[0]), spec.options


def _format_of_files(kind: str, paths: list[Path]) -> tuple[Format, list[Path]]:
    path = paths[0]
    suffix = path.suffix.lower()
    shards = [path.with_suffix(".tar")] if path.with_suffix(".tar").exists() else sorted(path.parent.glob("*.tar"))
    if suffix == ".jsonl" and (kind == "shards" or (not kind and shards)):
        return FORMATS["shards"], [*paths, *shards]
    if not kind and suffix == ".json":
        document = json_document(path)
        images = document.get("images") if isinstance(document, dict) else None
        kind = "jsonl" if isinstance(document, list) else "coco"
        if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
            kind = "karpathy"
    kind = kind or _BY_SUFFIX.get(suffix, "")
    if not kind and (path.name.endswith("token.txt") or is_token_file(path)):
        kind = "flickr8k"
    if not kind and suffix == ".txt" and is_caption_table(path):
        kind = "csv"
    if not kind or kind == "sidecar":
        raise DataError(f"{str(path)!r} has an unknown format; write FORMAT:{path}, with one of {', '.join(FORMATS)}")
    return FORMATS[kind], paths


def _format_of_folder(kind: str, path: Path) -> tuple[Format, list[Path]]:
    folders = [path]
    for depth in range(_MAX_DEPTH + 1):
        matches: dict[str, list[Path]] = {}
        for folder in folders:
            for name, files in _matches(kind, folder).items():
                matches.setdefault(name, []).extend(files)
        if len(matches) > 1:
            names = ", ".join(f"{name}: {files[0].name}" for name, files in matches.items())
            raise DataError(f"{path} may be in several formats ({names}); choose one, as in {next(iter(matches))}:{path}")
        for name, files in matches.items():
            return FORMATS[name], files
        if depth == 0 and kind in ("", "sidecar") and _is_sidecar(path, is_chosen=bool(kind)):
            return FORMATS["sidecar"], [path]
        folders = [child for folder in folders for child in _children(folder) if child.is_dir()]
    if kind == "shards":
        numbers = (len(_glob(path, pattern)) for pattern in ("*.tar", "*.jsonl"))
        raise DataError("{} has {} tar shards and {} captions.<language>.jsonl; it needs both".format(path, *numbers))
    files = sorted(_children(path))
    for file in files:
        if file.is_file() and len(files) == 1:
            check_readable_kind(file)
    expected = ", ".join(pattern for entry in FORMATS.values() for pattern in entry.patterns if kind in ("", entry.name))
    content = ", ".join(file.name for file in files[:5]) or "no files"
    raise DataError(
        f"{path} has no captions in a known format; expected {expected or 'images with .txt next to them'}, but it has {content}"
    )


def _matches(kind: str, folder: Path) -> dict[str, list[Path]]:
    """Return the files of each format in a folder."""
    json_lines, shards = _glob(folder, "*.jsonl"), _glob(folder, "*.tar")
    if json_lines and shards and kind in ("", "shards"):
        return {"shards": [*json_lines, *shards]}
    matches: dict[str, list[Path]] = {}
    for entry in FORMATS.values():
        for pattern in entry.patterns if kind in ("", entry.name) else ():
            files = [file for file in _glob(folder, pattern) if not file.name.endswith(_LEMMA_SUFFIX)]
            if pattern in _TEXT_PATTERNS:
                is_known = is_caption_table if entry.name == "csv" else is_token_file
                files = [file for file in files if is_known(file)]
            if files and entry.name not in matches:
                matches[entry.name] = files
    tables = [file for file in matches.get("csv", []) if is_caption_table(file)]
    if tables:
        matches["csv"] = tables
    elif len(matches) > 1:  # a table of something else next to the captions
        matches.pop("csv", None)
    return matches


def _is_sidecar(path: Path, *, is_chosen: bool) -> bool:
    if is_chosen:
        return any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))
    return has_texts(path)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_system_file(path.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check that you may read it") from error


def _glob(folder: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern of at most two parts; case does not matter, files of the system are left out."""
    head, slash, tail = pattern.partition("/")
    paths = [path for path in _children(folder) if fnmatchcase(path.name.lower(), head)]
    if slash:
        return [file for path in paths if path.is_dir() for file in _glob(path, tail)]
    return [path for path in paths if path.is_file()]
