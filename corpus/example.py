"""One captioned photograph, whatever format it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from model import Box


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An object of the photograph: its class and its rectangle in pixels of the file."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class Member:
    """A picture inside a tar shard: where its bytes lie. Nothing is read before `read`."""

    shard: Path
    name: str
    offset: int  # bytes from the beginning of the shard
    size: int  # bytes

    def read(self) -> bytes:
        """Return the member's bytes."""
        with self.shard.open("rb", buffering=0) as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class Example:
    """A photograph with its references. An image id is in exactly one split.

    `languages` has one tag a reference (BCP 47), "" where the data does not tell; left out it is "" for all.
    """

    image: Path | Member | bytes
    references: tuple[str, ...]
    split: str
    image_id: str
    languages: tuple[str, ...] = ()
    objects: tuple[NamedBox, ...] = ()
    where: str = field(default="", compare=False)  # file and line, record or sample that tells it
    sources: tuple[str, ...] = field(default=(), compare=False)  # where each reference is told; left out: all there

    def __post_init__(self) -> None:
        if not self.languages:
            object.__setattr__(self, "languages", ("",) * len(self.references))
        if not self.sources:
            object.__setattr__(self, "sources", (self.where,) * len(self.references))
        assert len(self.languages) == len(self.references) == len(self.sources), "one language a reference"

    def read(self) -> bytes:
        """Return the picture's bytes."""
        if isinstance(self.image, bytes):
            return self.image
        return self.image.read_bytes() if isinstance(self.image, Path) else self.image.read()

    @property
    def place(self) -> str:
        """Where the picture lies, for people."""
        if isinstance(self.image, bytes):
            return f"image {self.image_id!r}"
        told = str(self.image) if isinstance(self.image, Path) else f"{self.image.shard}, member {self.image.name!r}"
        return told.encode(errors="backslashreplace").decode()

    def in_language(self, language: str) -> Example:
        """Return the example with the references in a language alone, and those whose language is not told."""
        kept = [place for place, told in enumerate(self.languages) if not told or matches_language(told, language)]
        return replace(
            self,
            references=tuple(self.references[place] for place in kept),
            languages=tuple(self.languages[place] for place in kept),
            sources=tuple(self.sources[place] for place in kept),
        )


def matches_language(told: str, wanted: str) -> bool:
    """Return whether a language tag is the one that is wanted or a kind of it: en-GB speaks en."""
    return f"{told.lower()}-".startswith(f"{wanted.lower()}-")
