"""The validation images of data without a val split: a share of its images, held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from corpus import CaptionedImage, identical_groups

_MIN_IMAGES = 8  # fewer tell little
_MAX_SHARE = 0.2  # of small data, unless a larger share is requested


def hold_out(
    entries: Sequence[CaptionedImage], share: float, seed: int, max_images: int
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Return the images to train on and those to validate on, both in the order of `entries`.

    The choice depends on the ids and the seed alone. Identical image files stay on one side. At least 8 images are held out if
    that is not more than a fifth, and at most `max_images`; at least one image is left to train on.
    """
    size = len(entries)
    requested = round(share * size)
    count = min(max(requested, _MIN_IMAGES), max(requested, int(_MAX_SHARE * size)), max_images, size - 1) if share else 0
    held_out: set[str] = set()
    if count > 0:
        groups = [[entry.image_id for entry in group] for group in identical_groups(entries)]
        for ids in sorted(groups, key=lambda ids: _rank(min(ids), seed)):
            if len(held_out) + len(ids) <= count:
                held_out.update(ids)
    return separate(entries, held_out)


def separate(entries: Sequence[CaptionedImage], held_out: set[str]) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Return the entries without and with an id in `held_out`."""
    return (
        [entry for entry in entries if entry.image_id not in held_out],
        [entry for entry in entries if entry.image_id in held_out],
    )


def _rank(image_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"validation {seed} {image_id}".encode()).digest()
