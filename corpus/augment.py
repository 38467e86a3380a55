"""Augmented views of a training image that keep its captions true: crops and mirror images, no change of color."""

from __future__ import annotations

import random
import re

from PIL import Image, ImageOps

MIN_CROP = 0.75  # smallest share of each edge that a crop keeps: captions seldom name things closer to the border


def augmented(image: Image.Image, view: int, rng: random.Random) -> Image.Image:
    """Return view number `view`: 0 is the image itself, 1 its mirror image, 2 and above are crops; odd views are mirrored."""
    if view >= 2:
        width, height = image.size
        width_share, height_share = (rng.uniform(MIN_CROP, 1.0) for _ in range(2))
        left, top = rng.uniform(0, 1 - width_share) * width, rng.uniform(0, 1 - height_share) * height
        image = image.crop((int(left), int(top), int(left + width_share * width), int(top + height_share * height)))
    return ImageOps.mirror(image) if is_mirrored(view) else image


def is_mirrored(view: int) -> bool:
    """Return whether `augmented` mirrors this view, so that its captions must be mirrored too."""
    return view % 2 == 1


def mirrored_caption(caption: str) -> str:
    """Swap the words left and right in a caption, so that it is true of the mirror image."""
    return re.sub(r"\b(left|right)\b", lambda match: "right" if match.group() == "left" else "left", caption)
