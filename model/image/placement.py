"""Where an image lies in the encoder's pixels: the sizes that it is resized to, and what is cropped away or padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.config import ImageConfig
from model.errors import ImageError
from model.geometry import Box

_MARGIN_LEVEL = 200  # gray levels of 0..255, from which a pixel is margin (Nougat)
_MAX_RATIO = 50  # of the longer to the shorter edge where both are kept
_THUMBNAIL_GAP = 2.0  # of Pillow's resize, which Nougat uses: faster, and not the same pixels


@dataclass(frozen=True, slots=True)
class Placement:
    """An image is resized to `sizes`, one after the other; the encoder's upper left pixel is then at (left, top), which is
    negative where black is added."""

    sizes: tuple[tuple[int, int], ...]  # (width, height)
    left: int
    top: int

    def covered(self, image: Box, config: ImageConfig) -> Box:
        """Return what the encoder's pixels cover of an image that is at `image` itself."""
        width, height = self.sizes[-1]
        across, down = (image.x1 - image.x0) / width, (image.y1 - image.y0) / height
        left, top = image.x0 + self.left * across, image.y0 + self.top * down
        return Box(left, top, left + config.width * across, top + config.height * down)


def placement(width: int, height: int, config: ImageConfig) -> Placement:
    """Return the placement of an image of width x height pixels."""
    if config.pad:
        first = _shorter_edge(width, height, min(config.width, config.height))
        last = _within(*first, config)
        left, top = -((config.width - last[0]) // 2), -((config.height - last[1]) // 2)
        return Placement((first,) if first == last else (first, last), left, top)
    if not config.resize_to:
        return Placement(((config.width, config.height),), 0, 0)
    if len(config.resize_to) == 1:
        size = _shorter_edge(width, height, config.resize_to[0])
    else:
        size = (config.resize_to[1], config.resize_to[0])
    return Placement((size,), (size[0] - config.width) // 2, (size[1] - config.height) // 2)


def without_margin(image: Image.Image) -> Box:
    """Return the part of an image that is not margin: the bounds of what is darker than most of its range (Nougat's rule)."""
    levels = np.asarray(image.convert("L"), dtype=np.float32)
    low, high = levels.min(), levels.max()
    if low == high:
        return Box(0, 0, *image.size)
    rows, columns = np.nonzero((levels - low) / (high - low) * 255 < _MARGIN_LEVEL)
    return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def thumbnail(image: Image.Image, size: tuple[int, int], config: ImageConfig) -> Image.Image:
    """Make an image smaller in the second step of `pad`, as the source's processor does: Nougat's or Donut's."""
    if config.crop_margin:
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=_THUMBNAIL_GAP)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    return image.resize(size, filters[config.resample])


def _shorter_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    """Return the size with the same aspect ratio whose shorter edge is `edge`; the longer one is rounded down.

    Raises ImageError for an image that is so narrow that it would have very many pixels.
    """
    size = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
    if max(size) > _MAX_RATIO * edge:
        raise ImageError(
            f"the image or region has {width} x {height} pixels; this checkpoint keeps the aspect ratio, and one side may be "
            f"{_MAX_RATIO} times the other: send another part of it"
        )
    return size


def _within(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """Return the size of an image that is made smaller until it fits into the encoder's pixels."""
    new_width, new_height = min(width, config.width), min(height, config.height)
    if (new_width, new_height) == (width, height):
        return width, height
    if height > width:
        new_width = int(width * new_height / height)
    elif width > height:
        new_height = int(height * new_width / width)
    return max(1, new_width), max(1, new_height)
