"""Bytes to pixels: what is refused, before or after decoding, and that nothing of a picture is lost or moved."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin

from model import (
    ALL_FORMATS,
    EmptyImageError,
    ImageConfig,
    ImageError,
    ImageLimits,
    ImageTooLargeError,
    UnsupportedImageError,
    decode_image,
    prepare,
)
from model.image import sniff_format

CONFIG = ImageConfig(height=32, width=48)
EVERYTHING = ImageLimits(formats=ALL_FORMATS)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def lying_png(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes whose header promises width x height."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def text_png(size: int) -> bytes:
    """A PNG with a zTXt chunk that inflates to `size` bytes."""
    plain = encoded(Image.new("RGB", (8, 8), "red"))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * size))
    return plain[:33] + text + plain[33:]


def levels(data: bytes, limits: ImageLimits = EVERYTHING) -> torch.Tensor:
    """Pixels in 0..255."""
    return (prepare(data, CONFIG, limits).pixels * 0.5 + 0.5) * 255


def test_no_bytes_are_an_empty_body():
    with pytest.raises(EmptyImageError) as caught:
        decode_image(b"")
    assert caught.value.code == "empty_body"


@pytest.mark.parametrize("data", [b"hello, I am a text file\n" * 20, b"%PDF-1.7 ...", b"\0" * 100, b"<svg></svg>"])
def test_bytes_of_no_picture_are_unsupported(data):
    with pytest.raises(UnsupportedImageError, match="no picture format"):
        decode_image(data)


@pytest.mark.parametrize("name", ["GIF", "BMP", "TIFF"])
def test_formats_that_are_not_switched_on_are_named(name):
    data = encoded(Image.new("RGB", (8, 8)), name)
    with pytest.raises(UnsupportedImageError, match=name):
        decode_image(data)
    assert decode_image(data, EVERYTHING).format == name


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_broken(name, photo):
    data = photo(200, 150, name)
    for share in (0.1, 0.5, 0.9):
        cut = data[: max(30, int(len(data) * share))]
        with pytest.raises(ImageError) as caught:
            decode_image(cut, EVERYTHING)
        assert caught.value.code == "broken_image"


def test_a_header_that_lies_is_refused_before_decoding(monkeypatch):
    data = lying_png(9400, 9400)
    assert len(data) < 130
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLargeError, match="9400 x 9400"):
        decode_image(data)


@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 2), (2**31 - 1, 2**31 - 1), (16_385, 1)])
def test_every_size_beyond_the_limits_is_too_many_pixels(size):
    with pytest.raises(ImageTooLargeError) as caught:
        decode_image(lying_png(*size))
    assert caught.value.code == "too_many_pixels"


def test_a_huge_text_chunk_is_broken_and_a_small_one_is_not():
    with pytest.raises(ImageError) as caught:
        decode_image(text_png(2_000_000))
    assert caught.value.code == "broken_image"
    assert decode_image(text_png(2_000)).upright_size == (8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "PA", "La", "RGBa"])
def test_every_colour_mode_becomes_three_channels_of_the_same_grey(mode):
    grey = Image.new("L", (20, 10), 100)
    if mode == "I;16":
        image = Image.new("I;16", (20, 10), 100 * 257)
    elif mode in ("La", "RGBa"):
        image = grey.convert(mode[:-1] + "A").convert(mode)
    else:
        image = grey.convert(mode) if mode not in ("PA",) else grey.convert("P").convert("PA")
    from model import resize_and_normalize

    pixels = (resize_and_normalize(image, CONFIG) * 0.5 + 0.5) * 255

    assert pixels.shape == (3, 32, 48)
    if mode != "1":
        assert (pixels - 100).abs().max() <= 2  # CMYK and YCbCr round


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(format):
    image = Image.new("I;16", (64, 32))
    image.putdata([x * 1024 for _ in range(32) for x in range(64)])
    found = levels(encoded(image, format))

    assert found[:, :, 0].max() < 8
    assert found[:, :, -1].min() > 245
    assert (found[0, 16].diff() >= -0.01).all(), "a ramp stays a ramp"


def test_a_cmyk_jpeg_keeps_its_colours():
    data = encoded(Image.new("RGB", (64, 64), (200, 40, 60)).convert("CMYK"), "JPEG", quality=95)
    found = levels(data)
    assert (found[:, 16, 24] - torch.tensor([200.0, 40.0, 60.0])).abs().max() < 12


def test_transparent_pixels_are_white_whatever_colour_hides_in_them():
    hidden = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    ImageDraw.Draw(hidden).rectangle((10, 10, 29, 29), fill=(0, 0, 255, 255))
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (10, 10, 30, 30))
    for data in (encoded(hidden), encoded(palette, transparency=0), encoded(palette, "GIF", transparency=0)):
        found = levels(data)
        assert found[:, 0, 0].min() > 250, "white, not the hidden red"
        assert found[2, 16, 24] > 250
        assert found[0, 16, 24] < 5
        assert found[1].min() > -12  # the bicubic filter may overshoot
        assert found[:, 16, 10].min() >= -12


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        found = levels(data)
        assert found[0].mean() > 245
        assert found[1:].mean() < 10


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2), (5000, 3000)])
def test_every_shape_is_squashed_whole(size):
    view = prepare(encoded(Image.new("RGB", size, (90, 90, 90)), "JPEG", quality=95), CONFIG)

    assert view.pixels.shape == (3, 32, 48)
    assert view.source_size == size
    assert (view.covers.x0, view.covers.y0, view.covers.x1, view.covers.y1) == (0, 0, *size)
    assert ((view.pixels * 0.5 + 0.5) * 255 - 90).abs().max() < 3


def test_what_is_at_the_border_of_the_picture_is_at_the_border_of_the_pixels():
    image = Image.new("RGB", (400, 100), "black")
    ImageDraw.Draw(image).rectangle((390, 0, 399, 99), fill="white")
    found = levels(encoded(image))
    assert found[:, :, -1].min() > 200
    assert found[:, :, :40].max() < 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_eight_orientations_put_a_box_where_it_was(orientation, format):
    upright = Image.new("RGB", (96, 64), (40, 40, 40))
    ImageDraw.Draw(upright).rectangle((60, 8, 83, 31), fill=(250, 250, 250))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's Transpose that makes the stored picture
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    data = encoded(stored, format, exif=exif, **options)

    view = prepare(data, CONFIG, EVERYTHING)
    picture = decode_image(data, EVERYTHING)

    assert view.source_size == (96, 64)
    assert view.orientation == orientation
    bright = ((view.pixels * 0.5 + 0.5) * 255).mean(0) > 150
    rows, columns = bright.nonzero().T
    assert abs(rows.min() - 4) <= 1
    assert abs(rows.max() - 15) <= 1
    assert abs(columns.min() - 30) <= 1
    assert abs(columns.max() - 41) <= 1
    assert picture.upright().size == (96, 64)
    assert picture.upright().getpixel((70, 20))[0] > 200


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same():
    image = Image.radial_gradient("L").resize((1600, 1200)).convert("RGB")
    data = encoded(image, "JPEG", quality=95)
    assert decode_image(data, least=(48, 32)).image.size[0] < 1600
    assert decode_image(data, least=(48, 32)).upright_size == (1600, 1200)
    assert (levels(data) - levels(encoded(image))).abs().max() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow says so, and goes on
def test_a_bad_exif_block_is_no_broken_picture(photo):
    data = photo(format="JPEG")
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", 30) + b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 14 + data[2:]
    assert prepare(broken, CONFIG).orientation == 1


def test_the_format_is_told_by_the_first_bytes(photo):
    for name in ALL_FORMATS:
        assert sniff_format(photo(format=name)) == name
