"""Images as users really have them, one row of a table per kind: read with the right colors, or refused with the right words."""

from __future__ import annotations

import io
import random
import re
import struct

import numpy as np
import pytest
import torch
from PIL import AvifImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from model import ALL_FORMATS, ImageConfig, ImageError, ImageLimits, UnsupportedImageError, decode_image, num_pixels, prepare
from model.image import color, formats, sniff_format
from tests.odd_images import (
    CONFIG,
    bigtiff,
    damaged,
    encoded,
    float_tiff,
    lab,
    lab_profile,
    levels,
    photo_like,
    profile_with,
    ramp,
    srgb_profile,
    wide_gamut,
)

LIMITS = ImageLimits(formats=ALL_FORMATS)
RED = (230, 30, 20)


def is_ramp(pixels: torch.Tensor) -> bool:
    """Whether it goes from black at the left to white at the right."""
    middle = pixels[0, 16]
    return bool(middle[1] < 12 and middle[-2] > 243 and (middle.diff() > -2).all())


def heic(image: Image.Image, **options: object) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90, **options)
    return file.getvalue()


PLAIN = [
    ("AVIF", encoded(photo_like(), "AVIF", quality=90)),
    ("AVIF with a container's brand", encoded(photo_like(), "AVIF", quality=90).replace(b"ftypavif", b"ftypmif1", 1)),
    ("HEIC", heic(photo_like())),
    ("JPEG of a color profile", encoded(photo_like(), "JPEG", quality=95, icc_profile=srgb_profile())),
    ("JPEG with bytes after its end", encoded(photo_like(), "JPEG", quality=95) + b"MotionPhoto" * 50),
    ("progressive JPEG", encoded(photo_like(), "JPEG", quality=95, progressive=True)),
    ("MPO of a phone's two cameras", encoded(photo_like(), "MPO", save_all=True, append_images=[photo_like()], quality=95)),
    ("LAB TIFF", encoded(lab(photo_like()), "TIFF")),
]


@pytest.mark.parametrize(("name", "data"), PLAIN, ids=[name for name, _ in PLAIN])
def test_a_file_is_read_as_the_image_that_was_saved(name, data):
    assert (levels(data) - levels(encoded(photo_like()))).abs().mean() < 5


GRAY = [
    ("BigTIFF", bigtiff(value=90)),
    ("TIFF", encoded(Image.new("L", (20, 20), 90), "TIFF")),
]


@pytest.mark.parametrize(("name", "data"), GRAY, ids=[name for name, _ in GRAY])
def test_every_kind_of_tiff_is_read(name, data):
    assert sniff_format(data) == "TIFF"
    assert (levels(data) - 90).abs().max() < 2


def with_values(changes: dict[tuple[int, int], float], scale: float = 1.0) -> np.ndarray:
    values = ramp() * scale
    for index, value in changes.items():
        values[index] = value
    return values


FLOATS = [
    ("0 to 1", float_tiff(ramp())),
    ("0 to 255", float_tiff(ramp() * 255)),
    ("0 to 65535", float_tiff(ramp() * 65535)),
    ("-1 to 1", float_tiff(ramp() * 2 - 1)),
    ("meters above the sea", float_tiff(ramp() * 80_000 - 40_000)),
    ("infinite", float_tiff(with_values({(0, 3): np.inf, (31, 40): -np.inf}))),
    ("undefined", float_tiff(with_values({(0, 3): np.nan}))),
    ("near the largest float", float_tiff(with_values({(0, 3): -3.4028235e38, (0, 4): 3.4e38}))),
    ("no-data without a tag", float_tiff(with_values({(0, 3): -9999, (1, 3): -9999}, scale=255))),
    ("no-data with a tag", float_tiff(with_values({(0, 3): 123456, (1, 3): 123456}), no_data="123456")),
    ("a tag that is no number", float_tiff(ramp(), no_data="none")),
]


@pytest.mark.parametrize(("name", "data"), FLOATS, ids=[name for name, _ in FLOATS])
def test_measured_values_are_scaled_over_what_is_finite(name, data):
    assert is_ramp(levels(data)), levels(data)[0, 16]


def test_a_float_image_without_a_finite_value_is_black():
    assert levels(float_tiff(np.full((8, 8), np.nan))).abs().max() < 1


def test_the_colors_of_a_wide_gamut_image_are_those_of_its_srgb_original():
    original = photo_like()
    converted, profile = wide_gamut(original)
    exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    for format in ("PNG", "JPEG", "WEBP", "TIFF"):
        options = exact.get(format, {})
        with_profile = levels(encoded(converted, format, icc_profile=profile, **options))
        expected = levels(encoded(original, format, **options))
        assert (with_profile - expected).abs().mean() < 3, format
        assert (levels(encoded(converted, format, **options)) - expected).abs().mean() > 5, "the profile matters"


def test_a_transparent_image_keeps_its_transparency_under_a_profile():
    image = Image.new("RGBA", (20, 20), (*RED, 0))
    image.paste((*RED, 255), (10, 0, 20, 20))
    converted, profile = wide_gamut(Image.new("RGB", (20, 20), RED))
    converted.putalpha(image.getchannel("A"))
    pixels = levels(encoded(converted, icc_profile=profile))
    assert pixels[:, 16, 4].min() > 250
    assert (pixels[:, 16, 44] - torch.tensor(RED)).abs().max() < 4


@pytest.mark.parametrize("full_decode", [False, True])
def test_a_profile_is_applied_once(full_decode):
    converted, profile = wide_gamut(photo_like())
    data = encoded(converted, icc_profile=profile)
    decoded = decode_image(data, LIMITS).upright()
    assert "icc_profile" not in decoded.info
    config = ImageConfig(height=32, width=48, full_decode=full_decode)
    from_upright = prepare(encoded(decoded), config).pixels
    assert (from_upright - prepare(data, config).pixels).abs().max() * 127.5 < 8


HOSTILE_PROFILES = [
    ("junk", b"\xee" * 400),
    ("of no length", b""),
    ("cut off", srgb_profile()[:300]),
    ("of another color space", lab_profile()),
    ("of 5 MB", srgb_profile() + bytes(5_000_000)),
    ("tags beyond its end", damaged(profile_with({}), 136, 0xFF)),
    ("a million tags", profile_with({})[:128] + struct.pack(">I", 1_000_000) + profile_with({})[132:]),
]


@pytest.mark.parametrize(("name", "profile"), HOSTILE_PROFILES, ids=[name for name, _ in HOSTILE_PROFILES])
def test_a_profile_that_cannot_be_used_is_ignored(name, profile):
    plain = levels(encoded(photo_like()))
    assert torch.equal(levels(encoded(photo_like(), "TIFF", icc_profile=profile)), plain)
    assert levels(encoded(Image.new("L", (9, 9), 90), icc_profile=srgb_profile())).mean() == pytest.approx(90, abs=1)


def test_few_transforms_are_kept_in_memory():
    assert color._transform.cache_info().maxsize <= 32


DAMAGED = {
    "PNG": [{}],
    "JPEG": [{"quality": 90}, {"progressive": True}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}],
    "TIFF": [{"compression": kind} for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")],
    "BMP": [{}],
    "AVIF": [{"speed": 10}],
}


@pytest.mark.parametrize("format", DAMAGED)
def test_an_image_that_pillow_refuses_is_refused(format):
    """One damaged byte in the image data, with and without reduced decoding. (JPEG, WebP, AVIF and BMP have no checksums.)"""
    rng, refused = random.Random(format), 0
    files = [
        encoded(image, format, **options)
        for options in DAMAGED[format]
        for image in (photo_like(), photo_like().convert("P"), photo_like().convert("RGBA"))
        if not (format == "JPEG" and image.mode != "RGB")
    ]
    for number in range(60):
        data = files[number % len(files)]
        data = damaged(data, rng.randrange(len(data) // 8, len(data)), rng.randrange(1, 256))
        try:
            Image.open(io.BytesIO(data)).load()
        except Exception:
            refused += 1
            for min_size in (None, (8, 8)):
                with pytest.raises(ImageError):
                    decode_image(data, LIMITS, min_size=min_size)
    has_checksums = format in ("PNG", "GIF", "TIFF")  # or codes that can be invalid
    assert refused >= (3 if has_checksums else 0)


TRUNCATED = [
    ("JPEG without an end marker", encoded(photo_like(), "JPEG", quality=90)[:-2], True),
    ("half a JPEG", encoded(photo_like(), "JPEG", quality=90)[:2500], True),
    ("half a progressive JPEG", encoded(photo_like(), "JPEG", quality=90, progressive=True)[:2500], True),
    ("half a PNG", encoded(photo_like())[:9000], True),
    ("a PNG with a damaged byte", damaged(encoded(photo_like()), 12_000), True),
    ("half a TIFF", encoded(photo_like(), "TIFF")[:12_000], True),
    ("a JPEG's header", encoded(photo_like(), "JPEG", quality=90)[:300], False),
    ("a PNG's header", encoded(photo_like())[:60], False),
]


@pytest.mark.parametrize(("name", "data", "has_pixels"), TRUNCATED, ids=[row[0] for row in TRUNCATED])
def test_a_truncated_file_is_refused_unless_the_limits_accept_it(name, data, has_pixels):
    with pytest.raises(ImageError) as caught:
        decode_image(data, LIMITS)
    assert caught.value.code == "broken_image"
    tolerant = ImageLimits(accept_truncated=True, formats=ALL_FORMATS)
    if not has_pixels:
        with pytest.raises(ImageError):
            prepare(data, CONFIG, tolerant)
        return
    view = prepare(data, CONFIG, tolerant)
    assert view.is_truncated
    upper = slice(2, 8)
    expected = levels(encoded(photo_like()))[:, upper]
    assert ((view.pixels[:, upper] * 0.5 + 0.5) * 255 - expected).abs().mean() < 20, "the upper part is the image's"


def test_a_complete_file_is_not_marked_as_truncated():
    for format in ("JPEG", "PNG", "WEBP", "AVIF"):
        assert not prepare(encoded(photo_like(), format), CONFIG, ImageLimits(accept_truncated=True)).is_truncated


NAMED = [
    (bigtiff(byte_order=">"), "big-endian BigTIFF", "convert"),
    (b"\xff\x0a" + bytes(40), "JPEG XL", "convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL", "convert"),
    (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000", "convert"),
    (b"8BPS\0\1" + bytes(40), "Photoshop", "convert"),
    (b"%PDF-1.7\n" + bytes(40), "PDF", "page"),
    (b"PK\x03\x04" + bytes(40), "ZIP", "unpack"),
    (b"<!DOCTYPE html><html><body>404", "HTML page", "download"),
    (b"\xef\xbb\xbf\n <html>", "HTML page", "download"),
    (b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="x">', "SVG", "convert"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer", "git lfs pull"),
    (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video", "frame"),
    (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "Canon camera raw", "convert"),
    (b"hello, I am a text", "not of a known image format", "send one of JPEG, PNG, WEBP, AVIF"),
    (encoded(Image.new("RGB", (8, 8)), "GIF"), "GIF", "not enabled"),
    (heic(photo_like()), "HEIC", "not enabled"),
]


@pytest.mark.parametrize(("data", "name", "remedy"), NAMED, ids=[f"{row[1]} {number}" for number, row in enumerate(NAMED)])
def test_what_is_not_read_is_named_with_what_to_do(data, name, remedy):
    with pytest.raises(UnsupportedImageError, match=f"(?s){name}.*{re.escape(remedy)}"):
        decode_image(data)


def test_a_format_that_this_installation_cannot_read_says_what_to_install(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedImageError, match=r"HEIC image; .*pip install pillow-heif"):
        decode_image(heic(photo_like()), LIMITS)
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    with pytest.raises(UnsupportedImageError, match="AVIF image; this build of Pillow does not read it"):
        decode_image(encoded(photo_like(), "AVIF"), LIMITS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["AVIF", "HEIC"])
def test_a_phones_image_is_upright(format, orientation):
    upright = Image.new("RGB", (96, 64), (40, 40, 40))
    upright.paste((250, 250, 250), (64, 0, 96, 32))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = heic(stored, exif=exif.tobytes()) if format == "HEIC" else encoded(stored, "AVIF", exif=exif, quality=90)
    view = prepare(data, CONFIG, LIMITS)
    assert view.source_size == (96, 64)
    pixels = (view.pixels * 0.5 + 0.5) * 255
    assert pixels[:, 2:12, 36:46].min() > 200
    assert pixels[:, 20:30, 2:30].max() < 90


def test_the_first_bytes_are_recognized_as_pillow_recognizes_them():
    plugins = {"JPEG": JpegImagePlugin, "PNG": PngImagePlugin, "GIF": GifImagePlugin, "TIFF": TiffImagePlugin,
               "WEBP": WebPImagePlugin, "AVIF": AvifImagePlugin}  # fmt: skip
    for prefix in TiffImagePlugin.PREFIXES:
        assert sniff_format(prefix + bytes(40)) == ("big-endian BigTIFF" if prefix == b"MM\0+" else "TIFF")
    for format, plugin in plugins.items():
        data = encoded(photo_like(), format)
        assert plugin._accept(data[:16])
        assert sniff_format(data) == format


def test_a_reduced_image_counts_the_pixels_that_are_decoded():
    data = encoded(Image.new("RGB", (8000, 6000), RED), "JPEG")
    assert num_pixels(data, min_size=(224, 224)) == 1000 * 750
    assert num_pixels(data) == 48_000_000
    assert (levels(data) - torch.tensor(RED)[:, None, None]).abs().max() < 4
    progressive = encoded(Image.new("RGB", (800, 600), RED), "JPEG", progressive=True)
    assert num_pixels(progressive, min_size=(224, 224)) == 480_000, "libjpeg holds all of its coefficients"
