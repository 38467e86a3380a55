"""Decoding of images within limits: format, header, limits, pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from model.errors import EmptyImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from model.image.color import to_rgb
from model.image.formats import ALL_FORMATS, DEFAULT_FORMATS, missing_support, sniff_format, unsupported_detail

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
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What an image's header may announce, checked before anything is decoded; and whether truncated images are accepted."""

    pixels: int = 64_000_000  # rows x columns
    edge: int = 16_384  # longer edge
    formats: tuple[str, ...] = DEFAULT_FORMATS
    accept_truncated: bool = False  # what can be decoded of a file whose end is missing or damaged


LOCAL_IMAGE_LIMITS = ImageLimits(pixels=170_000_000, edge=65_536, formats=ALL_FORMATS)
"""Limits of files on disk: looser than for clients."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image, before EXIF orientation and color profile; a JPEG may have been decoded smaller than `stored_size`."""

    image: Image.Image
    format: str
    orientation: int  # the EXIF value
    pending_orientation: int  # the part of it still to apply: Pillow rotates TIFF files itself, their size too
    stored_size: tuple[int, int]  # width, height before `pending_orientation`, at full resolution
    is_truncated: bool = False  # not everything could be decoded, and the limits accept that

    @property
    def upright_size(self) -> tuple[int, int]:
        width, height = self.stored_size
        return (height, width) if self.pending_orientation >= 5 else (width, height)

    def upright(self) -> Image.Image:
        """Return the whole image as sRGB, its EXIF orientation applied."""
        return oriented(to_rgb(self.image), self.pending_orientation)


def num_pixels(data: bytes, limits: ImageLimits | None = None, *, min_size: tuple[int, int] | None = None) -> int:
    """Return the number of pixels that `decode_image` would hold in memory.

    Raises like `decode_image`, and decodes nothing.
    """
    limits = limits or ImageLimits()
    with _as_image_error(_known_format(data, limits)) as name:
        image = _open(data, name)
        _check_size(image.size, limits)
        if not image.info.get("progressive"):  # of those libjpeg holds all coefficients
            _reduce(image, name, min_size)
        return image.size[0] * image.size[1]


def decode_image(data: bytes, limits: ImageLimits | None = None, *, min_size: tuple[int, int] | None = None) -> DecodedImage:
    """Decode an image within `limits`; a JPEG may be decoded smaller, but not below twice `min_size` (width, height).

    Raises EmptyImageError, UnsupportedImageError, ImageTooLargeError before decoding, ImageError for broken bytes.
    """
    limits = limits or ImageLimits()
    with _as_image_error(_known_format(data, limits)) as name:
        image = _open(data, name)
        _check_size(image.size, limits)
        stored_size = image.size
        orientation = _exif_orientation(image) if name == "TIFF" else 1  # loading changes that of TIFF files
        _reduce(image, name, min_size)
        is_truncated = False
        try:
            image.load()
        except (OSError, SyntaxError, EOFError, ValueError, IndexError, struct.error):
            if not limits.accept_truncated:
                raise
            image, is_truncated = _load_partly(data, name, min_size), True
        # After loading, as reading EXIF from a PNG loads it, and would hide a failure: a second load() succeeds.
        pending = _exif_orientation(image)
        return DecodedImage(image, name, orientation if name == "TIFF" else pending, pending, stored_size, is_truncated)


def oriented(image: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _known_format(data: bytes, limits: ImageLimits) -> str:
    if not data:
        raise EmptyImageError("the image has 0 bytes; send the bytes of an image file such as JPEG or PNG")
    name = sniff_format(data)
    if name not in limits.formats or missing_support(name):
        raise UnsupportedImageError(unsupported_detail(data, name, limits.formats))
    return name


def _open(data: bytes, name: str) -> Image.Image:
    if name == "HEIC":
        from pillow_heif import HeifImageFile  # an optional dependency, and its decoders are loaded only if they are used

        heif: Image.Image = HeifImageFile(io.BytesIO(data))
        return heif
    return Image.open(io.BytesIO(data), formats=[name])


def _reduce(image: Image.Image, name: str, min_size: tuple[int, int] | None) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8: 6000 x 6000 pixels in 12 ms instead of 212."""
    if name == "JPEG" and min_size is not None:
        image.draft(None, (2 * max(min_size), 2 * max(min_size)))


def _load_partly(data: bytes, name: str, min_size: tuple[int, int] | None) -> Image.Image:
    """Return the part of a damaged image that can be decoded; the rest is black. Raises what Pillow raises if that is nothing."""
    if name == "JPEG":  # libjpeg itself continues with the next block; it needs an end
        image = _open(data + _JPEG_END, name)
        _reduce(image, name, min_size)
        image.load()
    else:
        image = _open(data, name)
        try:
            image.load()
        except (OSError, SyntaxError, EOFError, ValueError, IndexError, struct.error):
            image.tile = []  # type: ignore[attr-defined]
            image.load()
    if all(low == high for low, high in _band_ranges(image)):
        raise OSError("no pixel was decoded")
    return image


def _band_ranges(image: Image.Image) -> list[tuple[float, float]]:
    ranges = image.getextrema()
    return [ranges] if len(image.getbands()) == 1 else list(ranges)  # type: ignore[list-item, arg-type]


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
        raise ImageError(f"the {name} image cannot be decoded: it is truncated or damaged; use a complete file") from error


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
