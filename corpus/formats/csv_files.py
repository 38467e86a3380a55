"""CSV and TSV with a header, one caption per row or column; metadata.csv of imagefolder, and the tables of Kaggle and Excel."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example
from corpus.formats.cells import caption_cell
from corpus.formats.columns import columns_of
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import CaptionRecord, id_prefix, join_records, split_source
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid

_MAX_CELL = 10_000_000  # characters
_DELIMITERS = (",", "\t", ";", "|")
_HEADER = ("file_name", "text", "language", "split", "image_id")
_NUMBER_AND_CAPTION = re.compile(r"\s*(\d+)\s+(\S.*)")  # a row of Flickr30k's table that lacks the second bar


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the header of a table says."""

    delimiter: str
    names: list[str]  # of the columns; "" for a column without a name
    captions: list[str]  # the columns with captions
    ends_with_caption: bool

    @property
    def is_quoted(self) -> bool:
        """Whether cells may be in quotes: those of Flickr30k's table (`image_name| comment_number| comment`) have stray ones."""
        has_number = any(name.lower().endswith("number") for name in self.names)
        return not (self.delimiter == "|" and self.ends_with_caption and has_number)


def read_csv(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read tables; the delimiter is the one that gives the header a column for images."""
    return join_records(chain.from_iterable(_records(path, paths, options) for path in paths), options)


def is_caption_table(path: Path) -> bool:
    """Return whether the first line of a file names a column for images and one for captions."""
    try:
        return bool(_parse_header(_lines(path, ErrorLog()), path, {})[0].captions)
    except DataError:
        return False


def write_csv(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write captions.csv with one caption per row, and the images in images/."""
    with folder.open("captions.csv", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180; cells with either character are quoted
        writer.writerow(_HEADER)
        for number, example in enumerate_valid(examples):
            name = folder.write_image(example, number, "images")
            for text, language in zip(example.references or ("",), example.languages or ("",), strict=True):
                writer.writerow((name, caption_cell(text) if text else "", language, example.split, example.image_id))


def _records(path: Path, paths: list[Path], options: ReadOptions) -> Iterator[CaptionRecord]:
    lines = _lines(path, options.errors)
    layout, first_row = _parse_header(lines, path, options.columns)
    if not layout.captions:
        raise DataError(
            f"{path}, line {first_row - 1} has no column for captions; it has {', '.join(filter(None, layout.names))}: name it, "
            "as in csv:PATH?caption=COLUMN"
        )
    prefix, source = id_prefix(path, paths), split_source(path, paths)
    rows = _quoted_rows(lines, layout, path, first_row, options) if layout.is_quoted else _plain_rows(lines, layout, first_row)
    for line, cells in rows:
        if any(cell.strip() for cell in cells):
            values: dict[str, object] | None = None
            with options.errors:
                values = dict(zip(layout.names, _matched(cells, layout, path, f"{path}, line {line}"), strict=True))
            if values is not None:
                values.pop("", None)
                yield CaptionRecord(f"{path}, line {line}", values, path, source, prefix=prefix)


def _lines(path: Path, errors: ErrorLog) -> Iterator[str]:
    return (line for _, line in text_lines(path, errors))


def _parse_header(lines: Iterator[str], path: Path, chosen: dict[str, str]) -> tuple[_Layout, int]:
    """Read the header, and return the layout and the number of the line after it. Excel writes `sep=;` before the header."""
    header, number = next(lines, ""), 1
    delimiters: tuple[str, ...] = _DELIMITERS
    if match := re.fullmatch(r"[\"']?sep=(.)[\"']?[;,\t]*", header.strip("\r\n"), re.IGNORECASE):
        delimiters, header, number = (match[1],), next(lines, ""), 2
    if not header.strip():
        raise DataError(f"{path} is empty; its first line must name the columns")
    failures = []
    for delimiter in delimiters:
        try:
            names = next(csv.reader([header.strip("\r\n")], delimiter=delimiter, skipinitialspace=True))
            names = [name.strip("\ufeff \t") for name in names]
            while len(names) > 1 and not names[-1]:  # Excel writes empty columns
                names.pop()
            captions = columns_of(names, chosen, f"{path}, line {number},")["caption"]
        except DataError as error:
            failures.append((header.count(delimiter), error))
            continue
        except (csv.Error, StopIteration) as error:
            raise DataError(f"{path}, line {number} cannot be parsed; it must name the columns") from error
        named = list(filter(None, names))
        if len(set(named)) < len(named):
            raise DataError(f"{path}, line {number} names a column twice; it has {', '.join(map(repr, named))}: rename one")
        return _Layout(delimiter, names, captions, bool(captions) and captions[-1] == names[-1]), number + 1
    raise max(failures, key=lambda failure: failure[0])[1]


def _quoted_rows(
    lines: Iterator[str], layout: _Layout, path: Path, first_row: int, options: ReadOptions
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with the numbers of their first lines; cells in quotes may have delimiters and line breaks."""
    csv.field_size_limit(_MAX_CELL)
    rows = csv.reader(lines, delimiter=layout.delimiter, strict=True, skipinitialspace=layout.delimiter == "|")
    while True:
        line = rows.line_num + first_row
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            with options.errors:
                reason = "has an unclosed or single quote"
                if "limit" in str(error):
                    reason = f"has a cell of more than {_MAX_CELL:,} characters, probably after an unclosed quote"
                raise DataError(
                    f"{path}, line {line} {reason}; quote cells that have quotes or line breaks, and double their quotes"
                ) from error
            return  # after an open quote, rows cannot be separated
        yield line, cells


def _plain_rows(lines: Iterator[str], layout: _Layout, first_row: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table without quotes, in which the caption is the rest of the line."""
    for line, text in enumerate(lines, start=first_row):
        cells = [cell.strip() for cell in text.strip("\r\n").split(layout.delimiter, len(layout.names) - 1)]
        match = _NUMBER_AND_CAPTION.fullmatch(cells[-1])
        if match and 2 <= len(cells) == len(layout.names) - 1:
            cells[-1:] = match.groups()
        yield line, [*cells[:-1], _unquoted(cells[-1])]


def _matched(cells: list[str], layout: _Layout, path: Path, origin: str) -> list[str]:
    """Return one cell per column: surplus empty cells are removed; in a .txt, commas of the last caption need no quotes."""
    count = len(layout.names)
    while len(cells) > count and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) >= count > 1 and layout.ends_with_caption and path.suffix.lower() == ".txt":
        cells = [*cells[: count - 1], _unquoted(layout.delimiter.join(cells[count - 1 :]))]
    if len(cells) != count:
        raise DataError(
            f"{origin} has {len(cells)} cells but there are {count} columns; quote cells that have {layout.delimiter!r}"
        )
    return cells


def _unquoted(cell: str) -> str:
    """Return a cell without white space at its ends, and without the quotes if all of it is in quotes."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', cell) else cell
