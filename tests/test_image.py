"""Bytes to pixels: which images are refused, before or after decoding; that no part of an image is lost or moved."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin

from model import (
    ALL_FORMATS,
    Box,
    EmptyImageError,
    ImageConfig,
    ImageError,
    ImageLimits,
    ImageTooLargeError,
    UnsupportedImageError,
    decode_image,
    prepare,
    prepare_regions,
    resize_and_normalize,
)
from model.image import IMAGE_SUFFIXES, UNREAD_SUFFIXES, is_image_name, is_system_name, sniff_format
from tests.odd_images import CONFIG, encoded, levels, png_chunk

ALL_LIMITS = ImageLimits(formats=ALL_FORMATS)


def lying_png(width: int, height: int) -> bytes:
    """Return a PNG of about a hundred bytes whose header announces width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def text_png(size: int) -> bytes:
    """Return a PNG with a zTXt chunk that decompresses to `size` bytes."""
    plain = encoded(Image.new("RGB", (8, 8), "red"))
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * size))
    return plain[:33] + text + plain[33:]


def test_no_bytes_are_an_empty_body():
    with pytest.raises(EmptyImageError) as caught:
        decode_image(b"")
    assert caught.value.code == "empty_body"


@pytest.mark.parametrize("data", [b"hello, I am a text file\n" * 20, b"\0" * 100, b"{}"])
def test_bytes_of_no_image_format_are_unsupported(data):
    with pytest.raises(UnsupportedImageError, match="not of a known image format"):
        decode_image(data)


@pytest.mark.parametrize("name", ["GIF", "BMP", "TIFF"])
def test_a_format_that_is_not_enabled_is_named(name):
    data = encoded(Image.new("RGB", (8, 8)), name)
    with pytest.raises(UnsupportedImageError, match=name):
        decode_image(data)
    assert decode_image(data, ALL_LIMITS).format == name


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_broken(name, photo):
    data = photo(200, 150, name)
    for share in (0.1, 0.5, 0.9):
        cut = data[: max(30, int(len(data) * share))]
        with pytest.raises(ImageError) as caught:
            decode_image(cut, ALL_LIMITS)
        assert caught.value.code == "broken_image"


def test_a_header_with_too_many_pixels_is_refused_before_decoding(monkeypatch):
    data = lying_png(9400, 9400)
    assert len(data) < 130
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLargeError, match="9400 x 9400"):
        decode_image(data)


@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 2), (2**31 - 1, 2**31 - 1), (16_385, 1)])
def test_every_size_above_the_limits_is_too_many_pixels(size):
    with pytest.raises(ImageTooLargeError) as caught:
        decode_image(lying_png(*size))
    assert caught.value.code == "too_many_pixels"


def test_a_huge_text_chunk_is_broken_and_a_small_one_is_not():
    with pytest.raises(ImageError) as caught:
        decode_image(text_png(2_000_000))
    assert caught.value.code == "broken_image"
    assert decode_image(text_png(2_000)).upright_size == (8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "PA", "La", "RGBa"])
def test_every_color_mode_becomes_three_channels_of_the_same_gray(mode):
    gray = Image.new("L", (20, 10), 100)
    if mode == "I;16":
        image = Image.new("I;16", (20, 10), 100 * 257)
    elif mode in ("La", "RGBa"):
        image = gray.convert(mode[:-1] + "A").convert(mode)
    else:
        image = gray.convert(mode) if mode not in ("PA",) else gray.convert("P").convert("PA")
    pixels = (resize_and_normalize(image, CONFIG) * 0.5 + 0.5) * 255

    assert pixels.shape == (3, 32, 48)
    if mode != "1":
        assert (pixels - 100).abs().max() <= 2  # CMYK and YCbCr round


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_values_are_scaled_and_not_clipped(format):
    image = Image.new("I;16", (64, 32))
    image.putdata([x * 1024 for _ in range(32) for x in range(64)])
    pixels = levels(encoded(image, format))

    assert pixels[:, :, 0].max() < 8
    assert pixels[:, :, -1].min() > 245
    assert (pixels[0, 16].diff() >= -0.01).all(), "a ramp stays monotonic"


def test_a_cmyk_jpeg_keeps_its_colors():
    data = encoded(Image.new("RGB", (64, 64), (200, 40, 60)).convert("CMYK"), "JPEG", quality=95)
    pixels = levels(data)
    assert (pixels[:, 16, 24] - torch.tensor([200.0, 40.0, 60.0])).abs().max() < 12


def test_transparent_pixels_are_white_whatever_their_hidden_color():
    hidden = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    ImageDraw.Draw(hidden).rectangle((10, 10, 29, 29), fill=(0, 0, 255, 255))
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (10, 10, 30, 30))
    for data in (encoded(hidden), encoded(palette, transparency=0), encoded(palette, "GIF", transparency=0)):
        pixels = levels(data)
        assert pixels[:, 0, 0].min() > 250, "white, not the hidden red"
        assert pixels[2, 16, 24] > 250
        assert pixels[0, 16, 24] < 5
        assert pixels[1].min() > -12  # the bicubic filter may overshoot
        assert pixels[:, 16, 10].min() >= -12


def test_the_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        pixels = levels(data)
        assert pixels[0].mean() > 245
        assert pixels[1:].mean() < 10


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2), (5000, 3000)])
def test_an_image_of_any_shape_is_resized_without_a_crop(size):
    view = prepare(encoded(Image.new("RGB", size, (90, 90, 90)), "JPEG", quality=95), CONFIG)

    assert view.pixels.shape == (3, 32, 48)
    assert view.source_size == size
    assert (view.covers.x0, view.covers.y0, view.covers.x1, view.covers.y1) == (0, 0, *size)
    assert ((view.pixels * 0.5 + 0.5) * 255 - 90).abs().max() < 3


def test_the_border_of_the_image_is_the_border_of_the_pixels():
    image = Image.new("RGB", (400, 100), "black")
    ImageDraw.Draw(image).rectangle((390, 0, 399, 99), fill="white")
    pixels = levels(encoded(image))
    assert pixels[:, :, -1].min() > 200
    assert pixels[:, :, :40].max() < 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_box_is_at_its_upright_position_for_all_eight_orientations(orientation, format):
    upright = Image.new("RGB", (96, 64), (40, 40, 40))
    ImageDraw.Draw(upright).rectangle((60, 8, 83, 31), fill=(250, 250, 250))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose that gives the stored image
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    data = encoded(stored, format, exif=exif, **options)

    view = prepare(data, CONFIG, ALL_LIMITS)
    decoded = decode_image(data, ALL_LIMITS)

    assert view.source_size == (96, 64)
    assert view.orientation == orientation
    bright = ((view.pixels * 0.5 + 0.5) * 255).mean(0) > 150
    rows, columns = bright.nonzero().T
    assert abs(rows.min() - 4) <= 1
    assert abs(rows.max() - 15) <= 1
    assert abs(columns.min() - 30) <= 1
    assert abs(columns.max() - 41) <= 1
    assert decoded.upright().size == (96, 64)
    assert decoded.upright().getpixel((70, 20))[0] > 200


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same():
    image = Image.radial_gradient("L").resize((1600, 1200)).convert("RGB")
    data = encoded(image, "JPEG", quality=95)
    assert decode_image(data, min_size=(48, 32)).image.size[0] < 1600
    assert decode_image(data, min_size=(48, 32)).upright_size == (1600, 1200)
    assert (levels(data) - levels(encoded(image))).abs().max() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow warns and continues
def test_a_bad_exif_block_does_not_make_an_image_broken(photo):
    data = photo(format="JPEG")
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", 30) + b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 14 + data[2:]
    assert prepare(broken, CONFIG).orientation == 1


def test_the_format_follows_from_the_first_bytes(photo):
    for name in set(ALL_FORMATS) - {"HEIC"}:
        assert sniff_format(photo(format=name)) == name


def test_the_suffixes_of_images_are_those_that_pillow_registers_for_the_formats_that_are_read():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.init()
    formats = {"HEIF": "HEIC", "MPO": "JPEG", "DIB": "BMP"}  # Pillow's names, and the names of what the files are
    registered = Image.registered_extensions().items()
    assert {suffix for suffix, name in registered if formats.get(name, name) in ALL_FORMATS} == IMAGE_SUFFIXES
    assert IMAGE_SUFFIXES.isdisjoint(UNREAD_SUFFIXES)


@pytest.mark.parametrize(
    ("name", "is_image", "is_system"),
    [
        ("a/b.JPG", True, False),
        ("b.heic", True, False),
        ("b.CR2", True, False),
        ("b.jpg.txt", False, False),
        ("jpg", False, False),
        ("._b.jpg", True, True),
        (".DS_Store", False, True),
        ("Thumbs.db", False, True),
        ("__MACOSX", False, True),
        (".", False, False),
        ("..", False, False),
    ],
)
def test_names_of_images_and_of_the_system(name, is_image, is_system):
    assert (is_image_name(name), is_system_name(name)) == (is_image, is_system)


REGIONS = [Box(0, 0, 90, 60), Box(10, 5, 58, 37), Box(31, 20, 90, 60), Box(89, 59, 90, 60)]  # of an image of 90 x 60 pixels


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_view_of_a_region_is_the_view_of_the_cropped_image(orientation, photo):
    upright = Image.open(io.BytesIO(photo(90, 60)))
    stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, exif=exif)

    views = prepare_regions(data, CONFIG, REGIONS)

    assert len(views) == len(REGIONS)
    for region, view in zip(REGIONS, views, strict=True):
        crop = upright.crop((region.x0, region.y0, region.x1, region.y1))
        assert torch.equal(view.pixels, prepare(encoded(crop), CONFIG).pixels)
        assert view.covers == region, "in pixels of the complete upright image"
        assert (view.source_size, view.orientation) == ((90, 60), orientation)


def test_a_region_is_cut_at_the_border_of_the_image(photo):
    (view,) = prepare_regions(photo(90, 60), CONFIG, [Box(-20, 30, 45, 999)])
    assert view.covers == Box(0, 30, 45, 60)


def test_a_cropped_region_covers_what_its_patches_show(photo):
    config = ImageConfig(height=32, width=48, resize_to=(64, 96))
    (view,) = prepare_regions(photo(90, 60), config, [Box(10, 20, 50, 60)])
    assert view.covers == Box(20, 30, 40, 50), "the middle half of both edges"


@pytest.mark.parametrize(
    "region", [Box(90, 0, 95, 10), Box(0, 60, 90, 70), Box(-9, -9, 0, 0), Box(50, 10, 40, 20), Box(3, 3, 3, 9)]
)
def test_a_region_without_a_pixel_in_the_image_is_an_error(region, photo):
    with pytest.raises(ImageError, match="has no pixel in an image of 90 x 60") as caught:
        prepare_regions(photo(90, 60), CONFIG, [Box(0, 0, 9, 9), region])
    assert caught.value.code == "broken_image"
