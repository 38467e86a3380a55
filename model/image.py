"""Bytes of an image to an ImageView: the one preprocessing path of training, evaluation and service.

The order is: format by first bytes, size by header, limits, decoding, color mode, resizing to the encoder's size,
EXIF orientation, normalization. Nothing is cropped away, and nothing is decoded before its header was checked.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from model.config import ImageConfig
from model.errors import EmptyImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from model.geometry import Box, ImageView

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP")
ALL_FORMATS = (*DEFAULT_FORMATS, "GIF", "BMP", "TIFF")

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What an image's header may announce; checked before anything is decoded."""

    pixels: int = 24_000_000  # rows x columns
    edge: int = 16_384  # longer edge
    formats: tuple[str, ...] = DEFAULT_FORMATS


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image, before EXIF orientation; a JPEG may have been decoded smaller than `stored_size`."""

    image: Image.Image
    format: str
    orientation: int  # the EXIF value
    pending_orientation: int  # the part of it still to apply: Pillow rotates TIFF files itself, their size too
    stored_size: tuple[int, int]  # width, height before `pending_orientation`, at full resolution

    @property
    def upright_size(self) -> tuple[int, int]:
        width, height = self.stored_size
        return (height, width) if self.pending_orientation >= 5 else (width, height)

    def upright(self) -> Image.Image:
        """Return the whole image as RGB, its EXIF orientation applied."""
        return _oriented(_to_rgb(self.image), self.pending_orientation)


def sniff_format(data: bytes) -> str:
    """Return the format by the first bytes, or "" for bytes of no known format."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    return "BMP" if data[:2] == b"BM" and len(data) > 26 else ""


def num_pixels(data: bytes, limits: ImageLimits | None = None) -> int:
    """Return the number of pixels in an image's header. Raises like `decode_image`, and decodes nothing."""
    limits = limits or ImageLimits()
    with _as_image_error(_known_format(data, limits)) as name:
        image = Image.open(io.BytesIO(data), formats=[name])
        _check_size(image.size, limits)
        return image.size[0] * image.size[1]


def decode_image(data: bytes, limits: ImageLimits | None = None, *, min_size: tuple[int, int] | None = None) -> DecodedImage:
    """Decode an image within `limits`; a JPEG may be decoded smaller, but not below twice `min_size` (width, height).

    Raises EmptyImageError, UnsupportedImageError, ImageTooLargeError before decoding, ImageError for broken bytes.
    """
    limits = limits or ImageLimits()
    with _as_image_error(_known_format(data, limits)) as name:
        image = Image.open(io.BytesIO(data), formats=[name])
        _check_size(image.size, limits)
        orientation = _exif_orientation(image)
        stored_size = image.size
        if name == "JPEG" and min_size is not None:
            # libjpeg decodes at 1/2, 1/4 or 1/8: 6000 x 6000 pixels in 12 ms instead of 212.
            image.draft(None, (2 * max(min_size), 2 * max(min_size)))
        image.load()
        pending = _exif_orientation(image) if name == "TIFF" else orientation
        return DecodedImage(image, name, orientation, pending, stored_size)


def prepare(data: bytes, config: ImageConfig, limits: ImageLimits | None = None) -> ImageView:
    """Decode an image and resize it to the encoder's size. Raises like `decode_image`."""
    min_size = None if config.full_decode else (config.width, config.height)
    return make_view(decode_image(data, limits, min_size=min_size), config)


def prepare_regions(
    data: bytes, config: ImageConfig, regions: Sequence[Box], limits: ImageLimits | None = None
) -> list[ImageView]:
    """Decode an image once and return a view of each region, in pixels of the upright image.

    Each view's `covers` is its region, so maps and boxes are in pixels of the whole image. Raises like `decode_image`, and
    ImageError for a region without a pixel in the image.
    """
    decoded = decode_image(data, limits)
    width, height = decoded.upright_size
    upright = decoded.upright()
    views = []
    for region in regions:
        box = Box(max(0, region.x0), max(0, region.y0), min(width, region.x1), min(height, region.y1))
        if box.x1 - box.x0 < 1 or box.y1 - box.y0 < 1:
            raise ImageError(f"region {region} has no pixel in an image of {width} x {height}; use [x0, y0, x1, y1) inside it")
        crop = upright.crop((round(box.x0), round(box.y0), round(box.x1), round(box.y1)))
        inner = _covered(crop.width, crop.height, config)
        left, top = round(box.x0), round(box.y0)
        covers = Box(left + inner.x0, top + inner.y0, left + inner.x1, top + inner.y1)
        pixels = resize_and_normalize(crop, config)
        views.append(ImageView(pixels, (width, height), covers, decoded.format, decoded.orientation))
    return views


def make_view(decoded: DecodedImage, config: ImageConfig) -> ImageView:
    """Resize a decoded image to the encoder's size: pixels (3, height, width) float32, normalized."""
    try:
        pixels = resize_and_normalize(decoded.image, config, decoded.pending_orientation)
    except Exception as error:  # a frame that only fails when it is converted
        raise ImageError(f"the {decoded.format} image cannot be converted to RGB; send it as RGB") from error
    width, height = decoded.upright_size
    return ImageView(pixels, (width, height), _covered(width, height, config), decoded.format, decoded.orientation)


def resize_and_normalize(image: Image.Image, config: ImageConfig, orientation: int = 1) -> Tensor:
    """An image of any mode and shape -> pixels (3, height, width) float32: (value / 255 - mean) / std.

    It is resized before its EXIF orientation is applied, unless the config says `full_decode`: rotating a small image is free.
    """
    if config.full_decode:
        image, orientation = _oriented(_to_rgb(image), orientation), 1
    height, width = config.resize_to or (config.height, config.width)
    size = (height, width) if orientation >= 5 else (width, height)
    small = _oriented(_to_rgb(_resizable(image).resize(size, _FILTERS[config.resample])), orientation)
    if config.resize_to:
        left, top = (width - config.width) // 2, (height - config.height) // 2
        small = small.crop((left, top, left + config.width, top + config.height))
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    pixels = values.reshape(config.height, config.width, 3).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(config.mean)[:, None, None], torch.tensor(config.std)[:, None, None]
    return (pixels - mean) / std


def _known_format(data: bytes, limits: ImageLimits) -> str:
    if not data:
        raise EmptyImageError("the image has 0 bytes; send the bytes of a JPEG, PNG or WebP file")
    name = sniff_format(data)
    if name not in limits.formats:
        raise UnsupportedImageError(
            f"the bytes are {'a ' + name + ' image' if name else 'not of a known image format'}; "
            f"send one of {', '.join(limits.formats)}"
        )
    return name


@contextmanager
def _as_image_error(name: str) -> Iterator[str]:
    """Turn whatever a decoder raises into ImageError, without its text: that may contain a memory address."""
    try:
        yield name
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError("the header announces too many pixels; send a smaller image") from error
    except MemoryError as error:
        raise ImageError(f"the {name} image needs more memory than is allowed; send a smaller one") from error
    except Exception as error:  # decoders raise many types on hostile bytes
        raise ImageError(f"the {name} image cannot be decoded: it is truncated or damaged; send a complete file") from error


def _covered(width: int, height: int, config: ImageConfig) -> Box:
    """Return the part of an upright image of width x height pixels that the encoder reads."""
    if not config.resize_to:
        return Box(0, 0, width, height)
    left, top = (config.resize_to[1] - config.width) // 2, (config.resize_to[0] - config.height) // 2
    across, down = width / config.resize_to[1], height / config.resize_to[0]
    return Box(left * across, top * down, (left + config.width) * across, (top + config.height) * down)


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.pixels or max(size) > limits.edge:
        raise ImageTooLargeError(
            f"the header says {width} x {height} pixels; the limits are {limits.pixels} pixels and {limits.edge} on the "
            "longer edge: send a smaller image"
        )
    if min(size) < 1:
        raise ImageError(f"the header says {width} x {height} pixels; an image has at least one: send another file")


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if there is none or it cannot be read: a bad tag does not make the image broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _resizable(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be resized without bleeding hidden colors: L, RGB, LA or RGBA.

    Pillow resizes LA and RGBA with premultiplied alpha.
    """
    if image.mode in ("L", "RGB", "LA", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image)
    if image.mode == "La":
        return image.convert("LA")
    has_alpha = image.mode in ("PA", "RGBa", "LA", "RGBA") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float gray to 0..255; Pillow's own conversion would clip it to white."""
    values = image.convert("F")
    _, high = values.getextrema()
    assert isinstance(high, float), "a float image has one band"
    is_16_bit = image.mode.startswith("I;16") or high > 255
    factor = 1 / 257 if is_16_bit else 255.0 if image.mode == "F" and high <= 1 else 1.0
    return values.point(lambda value: value * factor + 0).convert("L")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB, transparent parts over white."""
    image = _resizable(image)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
