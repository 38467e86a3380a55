"""JSON lines, or a JSON list, of records: an image file with a caption or a list of captions.

Also metadata.jsonl of Hugging Face's imagefolder (`file_name`, `text`), and lists with `image` and `caption`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import CaptionRecord, id_prefix, join_records, split_source
from corpus.formats.text_files import json_document, json_position, text_lines
from corpus.formats.writer import NewFolder, enumerate_valid, example_record


def read_json_lines(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read files of JSON lines, or of one JSON list each, with images next to them."""
    records = chain.from_iterable(
        json_records(path, options, prefix=id_prefix(path, paths), split_source=split_source(path, paths)) for path in paths
    )
    return join_records(records, options)


def write_json_lines(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write metadata.jsonl with one image per line, and the images in images/."""
    with folder.open("metadata.jsonl") as file:
        for number, example in enumerate_valid(examples):
            record = {"file_name": folder.write_image(example, number, "images"), **example_record(example)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def json_records(
    path: Path, options: ReadOptions, *, language: str = "", prefix: str = "", split_source: str = ""
) -> Iterator[CaptionRecord]:
    """Yield the records of a file. Raises DataError if it is not a list of records."""
    for origin, record in _parse_file(path, options):
        with options.errors:
            if not isinstance(record, dict):
                raise DataError(f"{origin} is {str(record)[:60]!r}; it must be an object with an image and captions")
        if isinstance(record, dict):
            yield CaptionRecord(origin, record, path, split_source, language, prefix)


def _parse_file(path: Path, options: ReadOptions) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".json":
        document = json_document(path)
        if not isinstance(document, list):
            raise DataError(f"{path} is not a list of records; write coco:{path} or karpathy:{path} if it is one of those")
        yield from ((f"{path}: record {number}", record) for number, record in enumerate(document))
        return
    for number, line in text_lines(path, options.errors):
        if line.strip():
            origin, record = f"{path}, line {number}", None
            with options.errors:
                record = _parse_line(line, origin)
            if record is not None:
                yield origin, record


def _parse_line(line: str, origin: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin} is not JSON{json_position(error)}; every line must be one object") from error
