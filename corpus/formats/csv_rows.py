"""CSV and TSV with a line of column names, one caption a row; Hugging Face's imagefolder has its metadata.csv so."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import Reading, text_lines
from corpus.formats.records import Row, columns_of, join_rows, rows_prefix, tells_split
from corpus.formats.writing import NewFolder, numbered

_LONGEST = 10_000_000  # characters of a cell
_DELIMITERS = (",", "\t", ";", "|")
_HEADER = ("file_name", "text", "language", "split", "image_id")


def read_csv(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read tables; the delimiter is the one by which the first line has a column for pictures."""
    return join_rows(chain.from_iterable(_rows(path, reading, rows_prefix(path, paths)) for path in paths), reading)


def write_csv(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write captions.csv, one caption a row, and the pictures in images/."""
    with folder.open("captions.csv", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180; and both characters are quoted in cells
        writer.writerow(_HEADER)
        for number, example in numbered(examples):
            name = folder.picture(example, number, "images")
            for text, language in zip(example.references or ("",), example.languages or ("",), strict=True):
                writer.writerow((name, text, language, example.split, example.image_id))


def _rows(path: Path, reading: Reading, prefix: str) -> Iterator[Row]:
    lines = text_lines(path, reading.faults)
    try:
        _, header = next(lines)
    except StopIteration:
        raise DataError(f"{path} is empty; its first line must name the columns") from None
    delimiter, names, caption = _told_by(header, path, reading)
    told = tells_split(path)
    csv.field_size_limit(_LONGEST)
    table = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True, skipinitialspace=delimiter == "|")
    while True:
        cells = None
        first = table.line_num + 2  # the header is line 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            with reading.faults:
                raise DataError(
                    f"{path}, line {first}: {error}; a cell with quotes or line breaks is quoted, its quotes doubled"
                ) from error
            return  # where a quote is not closed, what follows cannot be told apart
        if cells:
            with reading.faults:
                where = f"{path}, line {first}"
                if len(cells) != len(names):
                    raise DataError(
                        f"{where} has {len(cells)} cells but there are {len(names)} columns; quote cells that hold {delimiter!r}"
                    )
                values: dict[str, object] = dict(zip(names, cells, strict=True))
                values[caption] = values[caption] or None  # an empty cell: a picture without a caption
                row = Row(where, values, path.parent, told, prefix=prefix)
            if len(cells) == len(names):
                yield row


def _told_by(header: str, path: Path, reading: Reading) -> tuple[str, list[str], str]:
    """Return the delimiter, the names of the columns and the one that holds captions."""
    errors = []
    for delimiter in _DELIMITERS:
        try:
            names = [
                name.strip() for name in next(csv.reader([header.strip("\r\n")], delimiter=delimiter, skipinitialspace=True))
            ]
            columns = columns_of(names, reading.columns, f"{path}, line 1,")
        except DataError as error:
            errors.append((header.count(delimiter), error))
            continue
        except (csv.Error, StopIteration) as error:
            raise DataError(f"{path}, line 1 names no columns ({error!r}); the first line must") from error
        if not columns["caption"]:
            raise DataError(
                f"{path}, line 1 has no column for captions; it has {', '.join(names)}: name it, as in csv:PATH?caption=COLUMN"
            )
        if len(set(names)) < len(names):
            raise DataError(f"{path}, line 1 names a column twice; it has {', '.join(map(repr, names))}")
        return delimiter, names, columns["caption"]
    raise max(errors, key=lambda entry: entry[0])[1]
