"""Changed views of a training picture that keep its captions true: crops and mirror images, never a change of hue."""

from __future__ import annotations

import random
import re

from PIL import Image, ImageOps

MIN_CROP = 0.75  # share of each edge that a crop keeps at least: what captions name is seldom nearer to the border


def augmented(image: Image.Image, view: int, dice: random.Random) -> Image.Image:
    """Return view number `view`: 0 the picture itself, 1 its mirror image, then crops, every other one mirrored."""
    if view >= 2:
        width, height = image.size
        across, down = (dice.uniform(MIN_CROP, 1.0) for _ in range(2))
        left, top = dice.uniform(0, 1 - across) * width, dice.uniform(0, 1 - down) * height
        image = image.crop((int(left), int(top), int(left + across * width), int(top + down * height)))
    return ImageOps.mirror(image) if is_mirrored(view) else image


def is_mirrored(view: int) -> bool:
    """Return whether `augmented` mirrors this view, so that its captions must be mirrored too."""
    return view % 2 == 1


def mirrored_caption(caption: str) -> str:
    """Exchange left and right in a caption, so that it stays true of the mirror image."""
    return re.sub(r"\b(left|right)\b", lambda found: "right" if found.group() == "left" else "left", caption)
