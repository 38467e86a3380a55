"""Checks of files: what the readers leave out, and files that look like images or captions and are not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus.errors import ErrorLog
from corpus.example import Example
from corpus.findings import Case, Finding, findings_of
from corpus.formats.data_spec import parse_spec
from corpus.formats.image_files import is_system_file
from model import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_TABLE_SUFFIXES = (".csv", ".tsv")


def check_files(data: str, examples: Sequence[Example], errors: ErrorLog) -> list[Finding]:
    """Return the findings about what is left out. `errors` has what the reader skipped.

    Looked at are the folders with images of the examples, and all of `data` if it is a folder.
    """
    skipped = [Case(origin, text) for origin, text in errors.skipped]
    used = {example.image for example in examples if isinstance(example.image, Path)}
    roots = [path for path in parse_spec(data).paths if path.is_dir()]
    files = {file for root in roots for file in _files(root, recursive=True)}
    for folder in {path.parent for path in used if _exists(path)}:
        if not any(folder.is_relative_to(root) for root in roots) and folder.is_dir():
            files |= set(_files(folder, recursive=False))
    origins = {origin.rpartition(", line")[0] for example in examples for origin in (example.origin, *example.origins)}
    unread = [Case(str(file), "") for file in sorted(files) if file.suffix.lower() in UNREAD_SUFFIXES]
    unused = [Case(str(file), "") for file in sorted(files - used) if file.suffix.lower() in IMAGE_SUFFIXES]
    tables = [
        Case(str(file), "") for file in sorted(files) if file.suffix.lower() in _TABLE_SUFFIXES and str(file) not in origins
    ]
    advice = "Add records with captions for them, or remove them."
    return [
        *findings_of("warning", "captions that are left out", "Check that they are meant to be empty.", skipped),
        *findings_of("warning", "files that look like images and are not read", "Save them as JPEG or PNG.", unread),
        *findings_of("warning", "image files that no record names", advice, unused),
        *findings_of("warning", "tables that are not read", "If they have captions, name them as data too.", tables),
    ]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _files(folder: Path, *, recursive: bool) -> Iterator[Path]:
    for path in folder.rglob("*") if recursive else folder.iterdir():
        if not is_system_file(path.relative_to(folder).as_posix()) and path.is_file():
            yield path
