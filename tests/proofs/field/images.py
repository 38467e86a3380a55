"""Rows of the field report about image files, decoding and colors."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from corpus import check_data
from model import ALL_FORMATS, LOCAL_IMAGE_LIMITS, ImageConfig, ImageError, ImageLimits, decode_image, prepare
from tests.odd_images import damaged, encoded, float_tiff, photo_like, ramp, wide_gamut
from tests.proofs.field.command import caption
from tests.proofs.field.row import Row

_CONFIG = ImageConfig(height=224, width=224)
_DAMAGED = {"PNG": 200, "JPEG": 200, "WEBP": 200, "GIF": 50, "TIFF": 50, "BMP": 50, "AVIF": 50}


def _damaged_png(folder: Path, scratch: Path) -> tuple[bool, str]:
    data = (folder / "01_png_one_byte_flipped.png").read_bytes()
    (scratch / "a.png").write_bytes(data)
    (scratch / "a.txt").write_text("a dog")
    status, out, _ = caption(scratch / "a.png")
    report = check_data(str(scratch))
    error = _error_of(data)
    return bool(error and report.errors and status == 1 and not out), f"{error}; corpus check: {report.errors} errors"


def _no_end_marker(folder: Path, scratch: Path) -> tuple[bool, str]:
    data = (folder / "02_jpeg_without_end_marker.jpg").read_bytes()
    error = _error_of(data)
    view = prepare(data, _CONFIG, ImageLimits(accept_truncated=True))
    return bool(error) and view.is_truncated, f"{error}; with accept_truncated: is_truncated {view.is_truncated}"


def _bigtiff(folder: Path, scratch: Path) -> tuple[bool, str]:
    view = prepare((folder / "03_bigtiff.tif").read_bytes(), _CONFIG, ImageLimits(formats=("TIFF",)))
    return view.format == "TIFF", f"read, {view.source_size[0]} x {view.source_size[1]}"


def _avif(folder: Path, scratch: Path) -> tuple[bool, str]:
    (scratch / "a.avif").write_bytes((folder / "04_picture.avif").read_bytes())
    (scratch / "b.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    (scratch / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    status, out, err = caption(scratch, "--json")
    reasons = [line.strip().rpartition("/")[2] for line in err.splitlines() if "b.jxl: " in line or "c.heic: " in line]
    return status == 1 and out.count("\n") == 1 and len(reasons) == 2, f"AVIF captioned; {'; '.join(reasons)}"


def _wide_gamut(folder: Path, scratch: Path) -> tuple[bool, str]:
    converted, profile = wide_gamut(photo_like())
    files = [
        encoded(photo_like()),
        encoded(converted, icc_profile=profile),
        encoded(converted),
        encoded(photo_like(), icc_profile=b"x" * 999),
    ]
    pixels = [prepare(data, _CONFIG).pixels for data in files]
    original, with_profile, without, hostile = (value * 127.5 for value in pixels)
    errors = [float((value - original).abs().mean()) for value in (with_profile, without, hostile)]
    text = f"mean error in levels: with its profile {errors[0]:.1f}, ignored {errors[1]:.1f}, junk as profile {errors[2]:.1f}"
    return errors[0] < 3 < errors[1] and errors[2] == 0, text


def _float_tiff(folder: Path, scratch: Path) -> tuple[bool, str]:
    values = ramp()
    values[0, :3] = [np.inf, -9999, np.nan]
    row = prepare(float_tiff(values), ImageConfig(height=32, width=48), LOCAL_IMAGE_LIMITS).pixels[0, 16] * 127.5 + 127.5
    return bool(row[1] < 12 and row[-2] > 243), f"a ramp with inf, nan and -9999 goes from {row[1]:.0f} to {row[-2]:.0f}"


def _phone_sizes(folder: Path, scratch: Path) -> tuple[bool, str]:
    shapes = [(5712, 4284), (8064, 6048), (8160, 6144)]
    sizes = [prepare(encoded(Image.new("RGB", shape, "red"), "JPEG"), _CONFIG).source_size for shape in shapes]
    return sizes == shapes, ", ".join(f"{width * height / 1e6:.1f} megapixels" for width, height in sizes) + " read by default"


def _one_byte(folder: Path, scratch: Path) -> tuple[bool, str]:
    """Acceptance: whatever Pillow's load() refuses is refused here."""
    rng, refused, accepted = random.Random(4), 0, 0
    limits = ImageLimits(formats=ALL_FORMATS)
    for format, count in _DAMAGED.items():
        originals = [encoded(image, format) for image in (photo_like(), photo_like(200, 150))]
        for number in range(count):
            data = originals[number % 2]
            data = damaged(data, rng.randrange(len(data) // 8, len(data)), rng.randrange(1, 256))
            try:
                Image.open(io.BytesIO(data)).load()
            except Exception:
                refused += 1
                accepted += any(_is_accepted(data, limits, size) for size in (None, (16, 16)))
    return accepted == 0, f"{sum(_DAMAGED.values())} files, {refused} refused by Pillow, {accepted} of those accepted here"


def _is_accepted(data: bytes, limits: ImageLimits, min_size: tuple[int, int] | None) -> bool:
    try:
        decode_image(data, limits, min_size=min_size)
    except ImageError:
        return False
    return True


def _error_of(data: bytes) -> str:
    try:
        prepare(data, _CONFIG)
    except ImageError as error:
        return f"{error.code}: {error}"
    return ""


ROWS = [
    Row("01_png_one_byte_flipped.png", "400 broken_image, an error everywhere", _damaged_png),
    Row("02_jpeg_without_end_marker.jpg", "400; an option accepts what can be decoded", _no_end_marker),
    Row("03_bigtiff.tif", "read", _bigtiff),
    Row("04_picture.avif", "AVIF read; HEIC and JPEG XL named; nothing skipped silently", _avif),
    Row("ICC profile with other primaries", "converted to sRGB; hostile profiles bounded", _wide_gamut),
    Row("float TIFF with inf or no-data", "scaled over what is finite, or refused", _float_tiff),
    Row("photographs of 24.5, 48 and 50 megapixels", "taken by default", _phone_sizes),
    Row("files with one damaged byte", "whatever Pillow refuses is refused", _one_byte),
]
