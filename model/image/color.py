"""Colors: the modes that Pillow decodes to, values of more than 8 bits, transparency, and color profiles."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 4_000_000  # printers' profiles have up to 2 MB
_PROFILE_MODES = {"RGB ": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}  # color space of a profile: modes of images
_NO_DATA = 42113  # TIFF tag GDAL_NODATA
_NO_DATA_VALUES = (-9999.0, -32768.0)  # common in elevation models, without the tag too
_LARGEST = 1e30  # no-data values of float files are near the type's limit


def resizable(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be resized without bleeding hidden colors: L, RGB, CMYK, LAB, LA or RGBA.

    Pillow resizes LA and RGBA with premultiplied alpha.
    """
    if image.mode in ("L", "RGB", "CMYK", "LAB", "LA", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image)
    if image.mode == "La":
        return image.convert("LA")
    has_alpha = image.mode in ("PA", "RGBa", "LA", "RGBA") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB in sRGB: the color profile applied, transparent parts over white."""
    profile = image.info.get("icc_profile")
    image = _to_srgb(resizable(image), profile)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info.pop("icc_profile", None)  # it does not describe these values
    return image


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resize an image, and only then convert its colors: a profile is applied to few pixels."""
    small = resizable(image).resize(size, resample)
    if (profile := image.info.get("icc_profile")) is not None:
        small.info["icc_profile"] = profile
    return to_rgb(small)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from an ICC profile to sRGB; a damaged, huge or unsuitable profile is ignored, as viewers do."""
    if image.mode == "LAB":
        return _convert(image, _lab_transform())
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MAX_PROFILE_BYTES:
        return image
    transform = _transform(profile, image.mode)
    return image if transform is None else _convert(image, transform)


def _convert(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None, "it is not converted in place"
    return converted


@functools.lru_cache(maxsize=16)  # a folder's images have few profiles
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of images of a mode to sRGB, None if the profile is not usable for them."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode not in _PROFILE_MODES.get(source.profile.xcolor_space, ()):
            return None
        output = "RGBA" if mode == "RGBA" else "RGB"
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC if mode != "CMYK" else ImageCms.Intent.PERCEPTUAL
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, output, intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # what ImageCms raises for damaged profiles
        return None


@functools.lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float gray to 0..255; Pillow's own conversion would clip it to white.

    16-bit files are divided by 257, floats in 0..1 multiplied by 255, values in 0..255 kept. Everything else is measured data,
    and its range becomes 0..255. Infinite, undefined and no-data values are black, and have no part in the range.
    """
    if image.mode.startswith("I;16"):
        return image.convert("F").point(lambda value: value * (1 / 257) + 0).convert("L")
    values = np.array(image.convert("F"))
    is_data = np.isfinite(values) & (np.abs(values) < _LARGEST)
    for value in (*_NO_DATA_VALUES, *_declared_no_data(image)):
        is_data &= values != np.float32(value)
    if not is_data.any():
        return Image.new("L", image.size)
    low, high = float(values[is_data].min()), float(values[is_data].max())
    if low >= 0 and high <= 65535:
        low, factor = 0.0, 1 / 257 if high > 255 else 255.0 if image.mode == "F" and high <= 1 else 1.0
    else:
        factor = 255 / max(high - low, 1e-30)
    values[~is_data] = low
    return Image.fromarray(((values - np.float32(low)) * np.float32(factor)).round().astype(np.uint8))


def _declared_no_data(image: Image.Image) -> tuple[float, ...]:
    text = getattr(image, "tag_v2", {}).get(_NO_DATA, "")
    try:
        return (float(str(text).strip("\0 ")),)
    except ValueError:
        return ()
