"""Groups of entries whose image files have the same bytes: a split must not separate them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from corpus.dataset import CaptionedImage, FileLoader
from corpus.example import Example, ShardMember


def identical_groups(entries: Sequence[CaptionedImage]) -> list[list[CaptionedImage]]:
    """Return the entries in groups of identical image files, in the order of their first entries.

    Only files that have the size of another one are read. An image that cannot be read, or a rendered scene, is a group of one.
    """
    sizes = [_num_bytes(entry) for entry in entries]
    count = Counter(sizes)
    groups: defaultdict[Hashable, list[CaptionedImage]] = defaultdict(list)
    for index, (entry, size) in enumerate(zip(entries, sizes, strict=True)):
        digest = _digest(entry) if size is not None and count[size] > 1 else None
        groups[digest or index].append(entry)
    return list(groups.values())


def _num_bytes(entry: CaptionedImage) -> int | None:
    """Return the size of an image file, None if there is none."""
    if not isinstance(entry.load, FileLoader):
        return None
    image = entry.load.example.image
    if isinstance(image, bytes | ShardMember):
        return len(image) if isinstance(image, bytes) else image.size
    try:
        return image.stat().st_size
    except (OSError, ValueError):  # missing, or a name that no file can have
        return None


def _digest(entry: CaptionedImage) -> bytes | None:
    assert isinstance(entry.load, FileLoader)
    example: Example = entry.load.example
    try:
        return hashlib.sha256(example.read()).digest()
    except (OSError, ValueError):
        return None
