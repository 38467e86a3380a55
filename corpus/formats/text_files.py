"""Text and JSON files of data sets, all decoded here: UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError, ErrorLog

_BYTE_ORDER_MARKS = (  # UTF-32's first: that of little-endian UTF-16 is the start of it
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(data: bytes, origin: str) -> str:
    """Return the text of a file, or of a member of a shard, without its byte order mark.

    Raises DataError that names the line that cannot be decoded.
    """
    mark, encoding = _encoding(data)
    return _decode(data[len(mark) :], encoding, origin, 1)


def read_text(path: Path) -> str:
    """Return the text of a file. Raises DataError if it cannot be read or decoded."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and that you may read it") from error
    return decode_text(data, str(path))


def text_lines(path: Path, errors: ErrorLog) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers (from 1) and line ends.

    A line feed ends a line; in a file without any, a carriage return does (old Macintosh programs). A line that cannot be
    decoded is an error in `errors`. Raises DataError if the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and that you may read it") from error
    with file:
        mark, encoding = _encoding(file.read(4))
        file.seek(0 if encoding != "utf-8" else len(mark))
        lines: Iterable[bytes] = file
        if encoding != "utf-8":  # in UTF-16, the byte of a line feed does not end a line
            lines = ()
            with errors:
                lines = io.BytesIO(decode_text(file.read(), str(path)).encode())
        for number, line in enumerate(_split_at_carriage_returns(lines), start=1):
            text = None
            with errors:
                text = _decode(line, "utf-8", str(path), number)
            if text is not None:
                yield number, text


def json_document(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError with the position of the error in the file."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON{json_position(error)}; it may be truncated: copy it again") from error


def json_position(error: Exception) -> str:
    """Return where JSON is wrong as a part of a message, "" if that is not known."""
    return f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""


def _encoding(data: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that `data` starts with, b"" if it has none, and the encoding."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return mark, encoding
    return b"", "utf-8"


def _split_at_carriage_returns(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines; if the first one is the whole file, split at carriage returns."""
    for number, line in enumerate(lines):
        if number == 0 and b"\r" in line and not line.endswith(b"\n"):
            yield from (part for part in re.split(rb"(?<=\r)", line) if part)
        else:
            yield line


def _decode(data: bytes, encoding: str, origin: str, first_line: int) -> str:
    """Decode a text that starts in line `first_line`. A NUL character is an error, too: no text has one."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = first_line + data[: error.start].decode(encoding, "replace").count("\n")
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise DataError(f"{origin}, line {line} is not {name} ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        line = first_line + text[: text.index("\0")].count("\n")
        raise DataError(
            f"{origin}, line {line} has a NUL character: it may be UTF-16 without a byte order mark; save the file as UTF-8"
        )
    return text
