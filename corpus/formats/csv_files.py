"""CSV and TSV with a header, one caption per row; also metadata.csv of Hugging Face's imagefolder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import CaptionRecord, columns_of, id_prefix, join_records, name_with_split
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid

_MAX_CELL = 10_000_000  # characters
_DELIMITERS = (",", "\t", ";", "|")
_HEADER = ("file_name", "text", "language", "split", "image_id")


def read_csv(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read tables; the delimiter is the one that gives the header a column for images."""
    return join_records(chain.from_iterable(_records(path, options, id_prefix(path, paths)) for path in paths), options)


def write_csv(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write captions.csv with one caption per row, and the images in images/."""
    with folder.open("captions.csv", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180; cells with either character are quoted
        writer.writerow(_HEADER)
        for number, example in enumerate_valid(examples):
            name = folder.write_image(example, number, "images")
            for text, language in zip(example.references or ("",), example.languages or ("",), strict=True):
                writer.writerow((name, text, language, example.split, example.image_id))


def _records(path: Path, options: ReadOptions, prefix: str) -> Iterator[CaptionRecord]:
    lines = text_lines(path, options.errors)
    try:
        _, header = next(lines)
    except StopIteration:
        raise DataError(f"{path} is empty; its first line must name the columns") from None
    delimiter, names, caption_column = _parse_header(header, path, options)
    split_source = name_with_split(path)
    csv.field_size_limit(_MAX_CELL)
    rows = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True, skipinitialspace=delimiter == "|")
    while True:
        cells = None
        first_line = rows.line_num + 2  # the header is line 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            with options.errors:
                raise DataError(
                    f"{path}, line {first_line}: {error}; quote cells that have quotes or line breaks, and double their quotes"
                ) from error
            return  # after an open quote, rows cannot be separated
        if cells:
            with options.errors:
                origin = f"{path}, line {first_line}"
                if len(cells) != len(names):
                    raise DataError(
                        f"{origin} has {len(cells)} cells but there are {len(names)} columns; quote cells that have {delimiter!r}"
                    )
                values: dict[str, object] = dict(zip(names, cells, strict=True))
                values[caption_column] = values[caption_column] or None  # an empty cell: an image without captions
                record = CaptionRecord(origin, values, path.parent, split_source, prefix=prefix)
            if len(cells) == len(names):
                yield record


def _parse_header(header: str, path: Path, options: ReadOptions) -> tuple[str, list[str], str]:
    """Return the delimiter, the names of the columns and the name of the caption column."""
    failures = []
    for delimiter in _DELIMITERS:
        try:
            names = [
                name.strip() for name in next(csv.reader([header.strip("\r\n")], delimiter=delimiter, skipinitialspace=True))
            ]
            columns = columns_of(names, options.columns, f"{path}, line 1,")
        except DataError as error:
            failures.append((header.count(delimiter), error))
            continue
        except (csv.Error, StopIteration) as error:
            raise DataError(f"{path}, line 1 cannot be parsed ({error!r}); it must name the columns") from error
        if not columns["caption"]:
            raise DataError(
                f"{path}, line 1 has no column for captions; it has {', '.join(names)}: name it, as in csv:PATH?caption=COLUMN"
            )
        if len(set(names)) < len(names):
            raise DataError(f"{path}, line 1 names a column twice; it has {', '.join(map(repr, names))}: rename one")
        return delimiter, names, columns["caption"]
    raise max(failures, key=lambda failure: failure[0])[1]
