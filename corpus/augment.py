"""Augmented training images that keep their captions true: crops, mirror images and small distortions, no change of color."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps

MIN_CROP = 0.75  # smallest share of each edge that a crop keeps: captions seldom name things closer to the border
MAX_MAGNITUDE = 10
_FILL = (124, 116, 104)  # ImageNet's mean color, where a distortion leaves no image
_MIN_ASPECT = 3 / 4  # of a random crop, in proportion to the image's own


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


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of an image, another one each time; the caller mirrors image and caption together."""

    min_crop_area: float = 1.0  # smallest share of the image's area that a random resized crop keeps; 1: no crop
    num_operations: int = 0  # of RandAugment, per image
    magnitude: int = 5  # of RandAugment, 0 to 10

    @property
    def is_active(self) -> bool:
        return self.min_crop_area < 1 or self.num_operations > 0

    def __call__(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Return a changed image; it may have another size.

        Random resized crop: Szegedy et al. 2015, section 6. RandAugment: Cubuk et al. 2020, section 3, without the operations
        that change colors (color, posterize, solarize, invert, and equalize and autocontrast, which work channel by channel).
        """
        if self.min_crop_area < 1:
            image = self._cropped(image, rng)
        for _ in range(self.num_operations):
            image = rng.choice(_OPERATIONS)(image, self.magnitude / MAX_MAGNITUDE * rng.choice((-1, 1)))
        return image

    def _cropped(self, image: Image.Image, rng: random.Random) -> Image.Image:
        width, height = image.size
        area, aspect = rng.uniform(self.min_crop_area, 1.0), rng.uniform(_MIN_ASPECT, 1 / _MIN_ASPECT)
        width_share, height_share = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
        left, top = rng.uniform(0, 1 - width_share) * width, rng.uniform(0, 1 - height_share) * height
        right, bottom = max(left + width_share * width, left + 1), max(top + height_share * height, top + 1)
        return image.crop((int(left), int(top), int(right), int(bottom)))


def _sheared(image: Image.Image, strength: float, *, is_horizontal: bool) -> Image.Image:
    shear = 0.3 * strength
    x, y = (shear, 0.0) if is_horizontal else (0.0, shear)
    center_x, center_y = image.width / 2, image.height / 2  # the center stays
    coefficients = (1.0, x, -x * center_y, y, 1.0, -y * center_x)
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _shifted(image: Image.Image, strength: float, *, is_horizontal: bool) -> Image.Image:
    x, y = (0.3 * strength * image.width, 0.0) if is_horizontal else (0.0, 0.3 * strength * image.height)
    coefficients = (1.0, 0.0, x, 0.0, 1.0, y)
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _rotated(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _sharpened(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength)


def _brightened(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + 0.5 * strength)


_OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, strength: image,
    lambda image, strength: _sheared(image, strength, is_horizontal=True),
    lambda image, strength: _sheared(image, strength, is_horizontal=False),
    lambda image, strength: _shifted(image, strength, is_horizontal=True),
    lambda image, strength: _shifted(image, strength, is_horizontal=False),
    _rotated,
    _sharpened,
    _brightened,
)
