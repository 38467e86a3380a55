"""One captioned image, independent of the format that it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from model import LOCAL_IMAGE_LIMITS, Box, ImageLimits


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An object in the image: its class name and its bounding box in pixels of the image file."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class ShardMember:
    """An image file inside a tar shard, by the position of its bytes. `read` reads them."""

    shard: Path
    name: str
    offset: int  # bytes from the start of the shard
    size: int  # bytes

    def read(self) -> bytes:
        """Return the bytes of the image file. Raises OSError if the shard cannot be read."""
        with self.shard.open("rb", buffering=0) as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class Example:
    """An image with its reference captions. An image id is unique in the data; `own_id` is the one that the data has.

    `languages` has one tag (BCP 47) per reference, "" if the data does not name the language. The default is "" for all.
    """

    image: Path | ShardMember | bytes
    references: tuple[str, ...]
    split: str
    image_id: str
    languages: tuple[str, ...] = ()
    objects: tuple[NamedBox, ...] = ()
    origin: str = field(default="", compare=False)  # the file and the line, record or sample of the example
    origins: tuple[str, ...] = field(default=(), compare=False)  # one per reference; the default is `origin` for all
    own_id: str = field(default="", compare=False)  # not unique if different images have the same; the default is `image_id`
    accept_truncated: bool = field(default=False, compare=False)  # what can be decoded of a damaged image is used

    def __post_init__(self) -> None:
        if not self.languages:
            object.__setattr__(self, "languages", ("",) * len(self.references))
        if not self.own_id:
            object.__setattr__(self, "own_id", self.image_id)
        if not self.origins:
            object.__setattr__(self, "origins", (self.origin,) * len(self.references))
        assert len(self.languages) == len(self.references) == len(self.origins), "one language and one origin per reference"

    def read(self) -> bytes:
        """Return the bytes of the image file. Raises OSError or ValueError if it cannot be read."""
        if isinstance(self.image, bytes):
            return self.image
        return self.image.read_bytes() if isinstance(self.image, Path) else self.image.read()

    @property
    def image_limits(self) -> ImageLimits:
        """What `decode_image` accepts of this example's image."""
        return replace(LOCAL_IMAGE_LIMITS, accept_truncated=self.accept_truncated)

    @property
    def location(self) -> str:
        """Path of the image, or its shard and member, as a text for messages."""
        if isinstance(self.image, bytes):
            return f"image {self.image_id!r}"
        text = str(self.image) if isinstance(self.image, Path) else f"{self.image.shard}, member {self.image.name!r}"
        return text.encode(errors="backslashreplace").decode()

    def in_language(self, language: str) -> Example:
        """Return the example with only the references in `language` and those without a language."""
        kept = [index for index, tag in enumerate(self.languages) if not tag or matches_language(tag, language)]
        return replace(
            self,
            references=tuple(self.references[index] for index in kept),
            languages=tuple(self.languages[index] for index in kept),
            origins=tuple(self.origins[index] for index in kept),
        )


def matches_language(tag: str, language: str) -> bool:
    """Return whether a language tag is `language` or a variant of it: en-GB matches en. Case is ignored."""
    return f"{tag.lower()}-".startswith(f"{language.lower()}-")
