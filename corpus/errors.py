"""What is wrong with somebody's data: the file, the record and what to do."""

from __future__ import annotations

from model import CaptionerError


class DataError(CaptionerError):
    """CaptionedImage photographs that cannot be read as told."""


class ErrorLog:
    """What readers find wrong: `with faults:` around a record or a file.

    The first fault goes through as the DataError that it is; with `keep` their messages are gathered, and reading goes on.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.found: list[str] = []

    def __enter__(self) -> ErrorLog:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if self.keep and isinstance(error, DataError):
            self.found.append(str(error))
            return True
        return False
