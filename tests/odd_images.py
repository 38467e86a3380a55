"""Image files as cameras, phones, scanners and broken downloads write them, as small as possible."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageCms

from model import LOCAL_IMAGE_LIMITS, ImageConfig, ImageLimits, prepare

CONFIG = ImageConfig(height=32, width=48)

P3_COLORANTS = {"rXYZ": (0.51512, 0.2412, -0.00105), "gXYZ": (0.29198, 0.69225, 0.04189), "bXYZ": (0.1571, 0.06657, 0.78407)}
"""Display P3's primaries, adapted to D50 (SMPTE RP 431-2, ICC)."""


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def levels(data: bytes, limits: ImageLimits = LOCAL_IMAGE_LIMITS) -> torch.Tensor:
    """Return the pixels (3, 32, 48) that an encoder of `CONFIG` reads, in 0..255."""
    return (prepare(data, CONFIG, limits).pixels * 0.5 + 0.5) * 255


def photo_like(width: int = 96, height: int = 64) -> Image.Image:
    """Return an image that compresses as photographs do: smooth shapes and some noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([columns * 255 / width, rows * 255 / height, (columns + rows) % 256], axis=2)
    return Image.fromarray(np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def lab(image: Image.Image) -> Image.Image:
    """Return an sRGB image in CIE Lab."""
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert converted is not None
    return converted


def profile_with(colorants: dict[str, tuple[float, float, float]]) -> bytes:
    """Return sRGB's ICC profile with other primaries."""
    data = bytearray(srgb_profile())
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        signature, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if (name := signature.decode()) in colorants:
            struct.pack_into(">3i", data, offset + 8, *(round(value * 65536) for value in colorants[name]))
    return bytes(data)


def wide_gamut(image: Image.Image) -> tuple[Image.Image, bytes]:
    """Return an sRGB image in Display P3's values, and that profile."""
    profile = profile_with(P3_COLORANTS)
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, target)
    assert converted is not None
    del converted.info["icc_profile"]
    return converted, profile


def damaged(data: bytes, position: int, change: int = 0x40) -> bytes:
    """Return a file with one byte changed."""
    copy = bytearray(data)
    copy[position] ^= change
    return bytes(copy)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bigtiff(width: int = 32, height: int = 24, value: int = 90, byte_order: str = "<") -> bytes:
    """Return a gray BigTIFF of one value (the layout of the BigTIFF design, 2004)."""
    head = (b"II+\0" if byte_order == "<" else b"MM\0+") + struct.pack(byte_order + "HHQ", 8, 0, 16)
    tags = [(256, 3, width), (257, 3, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 16, 0), (277, 3, 1), (278, 3, height),
            (279, 16, width * height)]  # fmt: skip
    offset = 16 + 8 + 20 * len(tags) + 8
    directory = struct.pack(byte_order + "Q", len(tags))
    for tag, kind, entry in tags:
        entry = offset if tag == 273 else entry
        packed = struct.pack(byte_order + ("H6x" if kind == 3 else "Q"), entry)
        directory += struct.pack(byte_order + "HHQ", tag, kind, 1) + packed
    return head + directory + struct.pack(byte_order + "Q", 0) + bytes([value]) * (width * height)


def float_tiff(values: np.ndarray, no_data: str = "") -> bytes:
    """Return a float TIFF, with GDAL's no-data tag if there is one."""
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if no_data:
        tags[42113] = no_data
    return encoded(Image.fromarray(values.astype(np.float32)), "TIFF", tiffinfo=tags)


def ramp() -> np.ndarray:
    """Return a horizontal ramp from 0 to 1 (32, 48)."""
    return np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
