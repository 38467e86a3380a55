"""Text and JSON files, with errors that name the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError, ErrorLog


def text_lines(path: Path, errors: ErrorLog) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 text with their numbers (from 1) and line ends; only a line feed ends a line.

    A line that is not UTF-8 is an error in `errors`. Raises DataError if the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and that you may read it") from error
    with file:
        for number, line in enumerate(file, start=1):
            text = None
            with errors:
                text = _decode(line, path, number)
            if text is not None:
                yield number, text


def json_document(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError with the position of the error in the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check that it exists and that you may read it") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); it may be truncated: copy it again") from error


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number} is not UTF-8 ({error.reason}); save the file as UTF-8") from error
