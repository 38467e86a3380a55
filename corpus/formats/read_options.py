"""The options of every reader."""

from __future__ import annotations

from dataclasses import dataclass, field

from corpus.errors import ErrorLog


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read data: where errors go, whether image files must exist, and the user's column names."""

    errors: ErrorLog = field(default_factory=ErrorLog)
    need_images: bool = True
    columns: dict[str, str] = field(default_factory=dict)  # field -> name of its column; csv, tsv and jsonl only
