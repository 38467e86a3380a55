"""Errors in data: the exception, and a log that collects the errors of many records."""

from __future__ import annotations

from model import CaptionerError


class DataError(CaptionerError):
    """Data cannot be read or written. The message names the file and the record, and says what to do."""


class ErrorLog:
    """Context manager around the reading of one record or file: `with errors:`.

    By default the first DataError is raised. With `keep` its message is appended to `messages` and reading continues.
    `skipped` has what readers leave out without an error, such as an empty caption: its origin and a description.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.messages: list[str] = []
        self.skipped: list[tuple[str, str]] = []

    def __enter__(self) -> ErrorLog:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self.keep and isinstance(error, DataError):
            self.messages.append(str(error))
            return True
        return False

    def skip(self, origin: str, description: str) -> None:
        """Record something that is left out; it is not an error."""
        self.skipped.append((origin, description))
