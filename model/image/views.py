"""Views: what the encoder reads of an image, resized and normalized."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from model.config import ImageConfig
from model.errors import ImageError, RegionError
from model.geometry import Box, ImageView
from model.image.color import resize, to_rgb
from model.image.decode import DecodedImage, ImageLimits, decode_image, oriented
from model.image.placement import placement, thumbnail, without_margin

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def prepare(data: bytes, config: ImageConfig, limits: ImageLimits | None = None) -> ImageView:
    """Decode an image and resize it to the encoder's size. Raises like `decode_image`."""
    min_size = None if config.full_decode else (config.width, config.height)
    return make_view(decode_image(data, limits, min_size=min_size), config)


def prepare_regions(
    data: bytes, config: ImageConfig, regions: Sequence[Box], limits: ImageLimits | None = None, *, context: float = 0.0
) -> list[ImageView]:
    """Decode an image once and return a view of each region, in pixels of the upright image.

    With `context`, a view shows that share of the region's width and height more on each side, where the image has it. Each
    view's `covers` is what it shows, so maps and boxes are in pixels of the whole image. Raises like `decode_image`, and
    RegionError for a region without a pixel in the image.
    """
    decoded = decode_image(data, limits)
    width, height = decoded.upright_size
    upright = decoded.upright()
    views = []
    for region in regions:
        check_region(region, width, height)
        box = region.enlarged(context).inside(width, height)
        crop = upright.crop((round(box.x0), round(box.y0), round(box.x1), round(box.y1)))
        pixels, inner = _safe_pixels(decoded, crop, config)
        left, top = round(box.x0), round(box.y0)
        views.append(_view(decoded, pixels, Box(left + inner.x0, top + inner.y0, left + inner.x1, top + inner.y1)))
    return views


def check_region(region: Box, width: int, height: int) -> None:
    """Raises RegionError for a region that does not contain a pixel of an image of that size."""
    part = region.inside(width, height)
    if part.x1 - part.x0 < 1 or part.y1 - part.y0 < 1:
        corners = [round(edge, 2) for edge in (region.x0, region.y0, region.x1, region.y1)]
        raise RegionError(f"regions contains {corners}, which has no pixel in an image of {width} x {height}; send one inside it")


def make_view(decoded: DecodedImage, config: ImageConfig) -> ImageView:
    """Resize a decoded image to the encoder's size: pixels (3, height, width) float32, normalized."""
    pixels, covers = _safe_pixels(decoded, decoded.image, config, decoded.pending_orientation)
    # A JPEG may have been decoded smaller.
    reduced = decoded.image.size[::-1] if decoded.pending_orientation >= 5 else decoded.image.size
    across, down = (full / small for full, small in zip(decoded.upright_size, reduced, strict=True))
    return _view(decoded, pixels, Box(covers.x0 * across, covers.y0 * down, covers.x1 * across, covers.y1 * down))


def resize_and_normalize(image: Image.Image, config: ImageConfig, orientation: int = 1) -> Tensor:
    """An image of any mode and shape -> pixels (3, height, width) float32: (value / 255 - mean) / std.

    It is resized before its EXIF orientation is applied, unless the config says `full_decode`: rotating a small image is free.
    """
    return _pixels(image, config, orientation)[0]


def _safe_pixels(decoded: DecodedImage, image: Image.Image, config: ImageConfig, orientation: int = 1) -> tuple[Tensor, Box]:
    """Return what `_pixels` returns. Raises ImageError for what Pillow cannot convert."""
    try:
        return _pixels(image, config, orientation)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a frame that only fails when it is converted
        raise ImageError(f"the {decoded.format} image cannot be converted to RGB; send it as RGB") from error


def _pixels(image: Image.Image, config: ImageConfig, orientation: int = 1) -> tuple[Tensor, Box]:
    """Return the pixels, and what they cover of the upright image, in its own pixels."""
    if config.full_decode:
        image, orientation = oriented(to_rgb(image), orientation), 1
    is_turned = orientation >= 5
    whole = Box(0, 0, *(image.size[::-1] if is_turned else image.size))
    if config.crop_margin:
        whole = without_margin(image)
        image = image.crop((int(whole.x0), int(whole.y0), int(whole.x1), int(whole.y1)))
    layout = placement(round(whole.x1 - whole.x0), round(whole.y1 - whole.y0), config)
    width, height = layout.sizes[0]
    small = oriented(resize(image, (height, width) if is_turned else (width, height), _FILTERS[config.resample]), orientation)
    for size in layout.sizes[1:]:
        small = thumbnail(small, size, config)
    if small.size != (config.width, config.height) or layout.left or layout.top:
        small = small.crop((layout.left, layout.top, layout.left + config.width, layout.top + config.height))  # black outside
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    pixels = values.reshape(config.height, config.width, 3).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(config.mean)[:, None, None], torch.tensor(config.std)[:, None, None]
    return (pixels - mean) / std, layout.covered(whole, config)


def _view(decoded: DecodedImage, pixels: Tensor, covers: Box) -> ImageView:
    return ImageView(pixels, decoded.upright_size, covers, decoded.format, decoded.orientation, decoded.is_truncated)
