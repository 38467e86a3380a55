"""JSON lines, or a JSON list, of records: a picture's file with a caption or a list of them.

Hugging Face's imagefolder has its metadata.jsonl so (`file_name`, `text`), other programs' lists `image` and `caption`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import Reading, json_document, text_lines
from corpus.formats.records import Row, join_rows, rows_prefix, tells_split
from corpus.formats.writing import NewFolder, numbered, record_of


def read_json_lines(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read files of JSON lines, or of one JSON list each, with pictures beside them."""
    return join_rows(chain.from_iterable(json_rows(path, reading, prefix=rows_prefix(path, paths)) for path in paths), reading)


def write_json_lines(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write metadata.jsonl, one picture a line, and the pictures in images/."""
    with folder.open("metadata.jsonl") as file:
        for number, example in numbered(examples):
            record = {"file_name": folder.picture(example, number, "images"), **record_of(example)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def json_rows(path: Path, reading: Reading, language: str = "", prefix: str = "") -> Iterator[Row]:
    """Yield the records of a file with where they stand. Raises DataError where it is no list of records at all."""
    told = tells_split(path)
    for where, record in _records(path, reading):
        with reading.faults:
            if not isinstance(record, dict):
                raise DataError(f"{where} is {str(record)[:60]!r}; it must be an object with a picture and captions")
        if isinstance(record, dict):
            yield Row(where, record, path.parent, told, language, prefix)


def _records(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".json":
        document = json_document(path)
        if not isinstance(document, list):
            raise DataError(f"{path} is no list of records; say coco:{path} or karpathy:{path} if it is one of those")
        yield from ((f"{path}: record {number}", record) for number, record in enumerate(document))
        return
    for number, line in text_lines(path, reading.faults):
        if line.strip():
            where, record = f"{path}, line {number}", None
            with reading.faults:
                record = _parsed(line, where)
            if record is not None:
                yield where, record


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error}); every line must be one object") from error
