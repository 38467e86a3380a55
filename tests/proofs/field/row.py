"""One row of the field report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """An input or a habit of users, what should happen, and a function that tries it.

    `run` gets the folder of the report's inputs and an empty folder to write to; it returns whether the result is as
    specified, and the result in one line. An exception means that it is not. `reason` is why it need not be: the title of an
    entry of docs/decisions.md.
    """

    name: str
    expected: str
    run: Callable[[Path, Path], tuple[bool, str]]
    reason: str = ""
