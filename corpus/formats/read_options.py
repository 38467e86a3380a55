"""The options of every reader."""

from __future__ import annotations

from dataclasses import dataclass, field

from corpus.errors import ErrorLog
from corpus.formats.image_files import ImageFinder


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read data: where errors go, whether image files must exist, and the options of FORMAT:PATH?NAME=VALUE."""

    errors: ErrorLog = field(default_factory=ErrorLog)
    need_images: bool = True
    columns: dict[str, str] = field(default_factory=dict)  # field -> the user's name for its column; `Format.options` has all
    images: ImageFinder = field(default_factory=ImageFinder)
