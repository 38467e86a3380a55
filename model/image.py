"""Bytes of a photograph to an ImageView: the one way from pixels to the encoder, in training and in service.

The order is: format by first bytes, size by header, limits, decoding, colour mode, squash to the encoder's size,
EXIF turn, normalising. Nothing of the picture is cropped away, and nothing is decoded before its header was judged.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
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
_TURNS = {
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
    """What a picture's header may promise before anything is decoded."""

    pixels: int = 24_000_000  # rows x columns
    edge: int = 16_384  # longer edge
    formats: tuple[str, ...] = DEFAULT_FORMATS


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded photograph, before its EXIF turn; a JPEG may have been decoded smaller than `stored_size`."""

    image: Image.Image
    format: str
    orientation: int  # what EXIF says
    turn: int  # the part of it that is still to be done: Pillow turns TIFF files itself, their size too
    stored_size: tuple[int, int]  # width, height before `turn`, undiminished

    @property
    def upright_size(self) -> tuple[int, int]:
        width, height = self.stored_size
        return (height, width) if self.turn >= 5 else (width, height)

    def upright(self) -> Image.Image:
        """Return the whole photograph as RGB, turned as its EXIF orientation says."""
        return _turned(_flattened(self.image), self.turn)


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


def picture_size(data: bytes, limits: ImageLimits | None = None) -> int:
    """Return how many pixels a picture's header promises. Raises as `read_picture` does, and decodes nothing."""
    limits = limits or ImageLimits()
    with _telling(_known_format(data, limits)) as name:
        image = Image.open(io.BytesIO(data), formats=[name])
        _check_size(image.size, limits)
        return image.size[0] * image.size[1]


def read_picture(data: bytes, limits: ImageLimits | None = None, *, least: tuple[int, int] | None = None) -> Picture:
    """Decode a photograph within `limits`; a JPEG may be decoded smaller, but not below twice `least`.

    Raises EmptyImageError, UnsupportedImageError, ImageTooLargeError before decoding, ImageError for broken bytes.
    """
    limits = limits or ImageLimits()
    with _telling(_known_format(data, limits)) as name:
        image = Image.open(io.BytesIO(data), formats=[name])
        _check_size(image.size, limits)
        orientation = _orientation(image)
        stored_size = image.size
        if name == "JPEG" and least is not None:
            # libjpeg decodes at 1/2, 1/4 or 1/8: 6000 x 6000 pixels in 12 ms instead of 212.
            image.draft(None, (2 * max(least), 2 * max(least)))
        image.load()
        turn = _orientation(image) if name == "TIFF" else orientation
        return Picture(image, name, orientation, turn, stored_size)


def _known_format(data: bytes, limits: ImageLimits) -> str:
    if not data:
        raise EmptyImageError("the picture has 0 bytes; send the bytes of a JPEG, PNG or WebP file")
    name = sniff_format(data)
    if name not in limits.formats:
        raise UnsupportedImageError(
            f"the bytes are {'a ' + name + ' picture' if name else 'no picture format that is known'}; "
            f"send one of {', '.join(limits.formats)}"
        )
    return name


@contextmanager
def _telling(name: str) -> Iterator[str]:
    """Make ImageError of whatever a decoder raises."""
    try:
        yield name
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"the header promises too many pixels ({error}); send a smaller picture") from error
    except MemoryError as error:
        raise ImageError(f"the {name} picture needs more memory than is allowed; send a smaller one") from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise ImageError(f"the {name} picture cannot be decoded ({error}); send a whole, undamaged file") from error


def prepare(data: bytes, config: ImageConfig, limits: ImageLimits | None = None) -> ImageView:
    """Decode a photograph and squash it to the encoder's size. Raises as `read_picture` does."""
    least = None if config.exact else (config.width, config.height)
    return view(read_picture(data, limits, least=least), config)


def view(picture: Picture, config: ImageConfig) -> ImageView:
    """Squash a decoded photograph to the encoder's size: pixels (3, height, width) float32, normalised."""
    try:
        pixels = squash(picture.image, config, picture.turn)
    except Exception as error:  # a frame that only fails when it is converted
        raise ImageError(f"the {picture.format} picture cannot be converted ({error}); send it as RGB") from error
    width, height = picture.upright_size
    return ImageView(pixels, (width, height), _covered(width, height, config), picture.format, picture.orientation)


def squash(image: Image.Image, config: ImageConfig, turn: int = 1) -> Tensor:
    """A picture of any mode and shape -> pixels (3, height, width) float32: (value / 255 - mean) / std.

    It is resized before its EXIF turn is applied, unless the config is `exact`: the turn of a small picture costs nothing.
    """
    if config.exact:
        image, turn = _turned(_flattened(image), turn), 1
    height, width = config.crop or (config.height, config.width)
    size = (height, width) if turn >= 5 else (width, height)
    small = _turned(_flattened(_colour(image).resize(size, _FILTERS[config.resample])), turn)
    if config.crop:
        left, top = (width - config.width) // 2, (height - config.height) // 2
        small = small.crop((left, top, left + config.width, top + config.height))
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    pixels = values.reshape(config.height, config.width, 3).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(config.mean)[:, None, None], torch.tensor(config.std)[:, None, None]
    return (pixels - mean) / std


def _covered(width: int, height: int, config: ImageConfig) -> Box:
    """Return the part of an upright picture of width x height pixels that the encoder sees."""
    if not config.crop:
        return Box(0, 0, width, height)
    left, top = (config.crop[1] - config.width) // 2, (config.crop[0] - config.height) // 2
    across, down = width / config.crop[1], height / config.crop[0]
    return Box(left * across, top * down, (left + config.width) * across, (top + config.height) * down)


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.pixels or max(size) > limits.edge:
        raise ImageTooLargeError(
            f"the header says {width} x {height} pixels; at most {limits.pixels} pixels and {limits.edge} on the "
            "longer edge are taken: send a smaller picture"
        )
    if min(size) < 1:
        raise ImageError(f"the header says {width} x {height} pixels; a picture has at least one: send another file")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or it cannot be read: a bad tag is no broken picture."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _colour(image: Image.Image) -> Image.Image:
    """Return a picture in a mode that can be resized without bleeding hidden colours: L, RGB, LA or RGBA.

    Pillow resizes LA and RGBA with the alpha multiplied in.
    """
    if image.mode in ("L", "RGB", "LA", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image)
    if image.mode == "La":
        return image.convert("LA")
    has_alpha = image.mode in ("PA", "RGBa", "LA", "RGBA") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 0..255; Pillow's own conversion would clip it to white."""
    values = image.convert("F")
    _, high = values.getextrema()
    assert isinstance(high, float), "a float picture has one band"
    sixteen = image.mode.startswith("I;16") or high > 255
    factor = 1 / 257 if sixteen else 255.0 if image.mode == "F" and high <= 1 else 1.0
    return values.point(lambda value: value * factor + 0).convert("L")


def _flattened(image: Image.Image) -> Image.Image:
    """Return RGB, with what is transparent laid over white."""
    image = _colour(image)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
