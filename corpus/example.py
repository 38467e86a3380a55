"""One captioned photograph, whatever format it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model import Box


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An object of the photograph: its class and its rectangle in pixels of the file."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class Example:
    """A photograph with its references. An image id is in exactly one split."""

    image: Path | bytes
    references: tuple[str, ...]
    split: str
    image_id: str
    language: str = "en"
    objects: tuple[NamedBox, ...] = ()

    def read(self) -> bytes:
        """Return the picture's bytes."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()
