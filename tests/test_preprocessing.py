"""Preprocessing of converted families: pixels equal those of their own processors, and what part the patches cover."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    DeiTImageProcessorPil,
    DonutImageProcessorPil,
    NougatImageProcessorPil,
    ViTImageProcessorPil,
)

from model import LOCAL_IMAGE_LIMITS, Box, ConfigError, ImageConfig, ImageError, prepare, prepare_regions

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CONFIGS = {
    "blip": ImageConfig(height=384, width=384, full_decode=True, **CLIP),
    "vit": ImageConfig(height=224, width=224, resample="bilinear", full_decode=True),
    "deit": ImageConfig(height=224, width=224, resize_to=(256, 256), full_decode=True),
    "trocr": ImageConfig(height=384, width=384, resample="bilinear", full_decode=True),
    "dinov2": ImageConfig(height=224, width=224, resize_to=(256,), full_decode=True, **IMAGENET),
    "donut": ImageConfig(height=256, width=192, resample="bilinear", pad=True, full_decode=True),
    "nougat": ImageConfig(height=256, width=192, resample="bilinear", pad=True, crop_margin=True, full_decode=True, **IMAGENET),
}
SHAPES = [(640, 480), (300, 500), (224, 224), (1000, 120), (50, 70)]


def processor(family):
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if family == "blip":
        return BlipImageProcessorPil()
    if family == "deit":
        size = {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}}
        return DeiTImageProcessorPil(resample=Image.Resampling.BICUBIC, do_center_crop=True, **size, **half)
    if family == "dinov2":
        return BitImageProcessorPil(
            size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=Image.Resampling.BICUBIC,
            image_mean=IMAGENET["mean"], image_std=IMAGENET["std"],
        )  # fmt: skip
    if family in ("donut", "nougat"):
        return (DonutImageProcessorPil if family == "donut" else NougatImageProcessorPil)(size={"height": 256, "width": 192})
    edge = 384 if family == "trocr" else 224
    return ViTImageProcessorPil(size={"height": edge, "width": edge}, resample=Image.Resampling.BILINEAR, **half)


def smooth_image(size, mode="RGB"):
    rng = np.random.default_rng(size[0])
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("family", CONFIGS)
def test_pixels_equal_the_familys_processor(family, size):
    image = smooth_image(size)
    file = io.BytesIO()
    image.save(file, "PNG")
    theirs = torch.from_numpy(np.asarray(processor(family)(image, return_tensors="np")["pixel_values"][0]))
    ours = prepare(file.getvalue(), CONFIGS[family]).pixels
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1 / 255 / 0.27 / 100, "a hundredth of a gray level"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_an_image_of_another_mode_is_prepared_as_its_rgb_conversion(mode):
    """The processors of ViT and DeiT reject these modes; BLIP converts them. Alpha is composited over white here."""
    image = smooth_image((300, 200), mode)
    file, plain = io.BytesIO(), io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    image.convert("RGB").save(plain, "PNG")
    one, other = (prepare(data.getvalue(), CONFIGS["blip"], LOCAL_IMAGE_LIMITS).pixels for data in (file, plain))
    assert (one - other).abs().max() < 1e-6


def test_exif_orientation_is_applied_before_resizing_with_full_decode():
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated, upright = io.BytesIO(), io.BytesIO()
    image = smooth_image((301, 203))
    image.save(rotated, "PNG", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(upright, "PNG")
    for config in CONFIGS.values():
        one, other = prepare(rotated.getvalue(), config), prepare(upright.getvalue(), config)
        assert torch.equal(one.pixels, other.pixels)
        assert (one.source_size, one.covers) == (other.source_size, other.covers)


def page(size):
    """Return a white page with a dark block whose position is known."""
    image = Image.new("RGB", size, "white")
    image.paste((10, 20, 30), (size[0] // 4, size[1] // 8, size[0] // 2, size[1] // 2))
    return image


@pytest.mark.parametrize("family", ["donut", "nougat", "dinov2"])
@pytest.mark.parametrize("size", [(200, 400), (400, 200), (300, 300), (97, 131)])
def test_the_patches_of_a_page_are_where_covers_says(family, size):
    """The dark block's position in the pixels and `covers` give its position in the image."""
    file = io.BytesIO()
    page(size).save(file, "PNG")
    config = CONFIGS[family]
    view = prepare(file.getvalue(), config)
    gray = view.pixels * torch.tensor(config.std)[:, None, None] + torch.tensor(config.mean)[:, None, None]
    dark = ((gray[2] > 0.06) & (gray[2] < 0.3)).nonzero()  # not the black of the padding
    (top, left), (bottom, right) = dark.min(0).values.tolist(), (dark.max(0).values + 1).tolist()
    across, down = (view.covers.x1 - view.covers.x0) / config.width, (view.covers.y1 - view.covers.y0) / config.height
    measured = (view.covers.x0 + left * across, view.covers.y0 + top * down, view.covers.x0 + right * across,
             view.covers.y0 + bottom * down)  # fmt: skip
    inside = (max(size[0] // 4, view.covers.x0), max(size[1] // 8, view.covers.y0), min(size[0] // 2, view.covers.x1),
              min(size[1] // 2, view.covers.y1))  # fmt: skip
    assert measured == pytest.approx(inside, abs=2.5 * max(across, down))


def test_covers_is_what_the_crop_keeps():
    file = io.BytesIO()
    smooth_image((512, 256)).save(file, "PNG")
    assert prepare(file.getvalue(), CONFIGS["deit"]).covers == Box(32, 16, 480, 240)
    assert prepare(file.getvalue(), CONFIGS["vit"]).covers == Box(0, 0, 512, 256)
    with pytest.raises(ConfigError, match="none below 224 x 224"):
        ImageConfig(resize_to=(200, 256))


@pytest.mark.parametrize("family", ["donut", "nougat", "dinov2"])
def test_an_image_or_region_that_is_too_narrow_to_keep_its_aspect_ratio_is_an_error(family):
    file = io.BytesIO()
    smooth_image((200, 3000)).save(file, "PNG")
    config = CONFIGS[family]
    for region in (Box(5, 0, 6, 2000), Box(0, 7, 200, 8)):
        with pytest.raises(ImageError, match=r"keeps the aspect ratio, and one side may be 50 times the other"):
            prepare_regions(file.getvalue(), config, [region])
    (view,) = prepare_regions(file.getvalue(), config, [Box(5, 0, 100, 2000)])
    assert view.pixels.isfinite().all()
    narrow = io.BytesIO()
    smooth_image((1, 20_000)).save(narrow, "PNG")
    with pytest.raises(ImageError, match="keeps the aspect ratio"):
        prepare(narrow.getvalue(), config, LOCAL_IMAGE_LIMITS)
