"""Overlays, contact sheets and heat maps have the right size and are bright where the map has its peak."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from PIL import Image

from model import Box, Caption, ImageView, PatchGrid, Word, WordMap
from report import contact_sheet, heat_map, overlay, sequence_map

GRID = PatchGrid(3, 4)


def word(text: str = "dog", patch: int | None = 0) -> Word:
    if patch is None:
        return Word(text, 0, len(text), -0.5, None, None, None)
    values = torch.zeros(12)
    values[patch] = 1.0
    return Word(text, 0, len(text), -0.5, 1.5, WordMap(values, 0.9), (0, 0, 10, 10))


def brightness(image: Image.Image, x: int, y: int) -> int:
    return sum(image.getpixel((x, y)))


@pytest.mark.parametrize(("patch", "point"), [(0, (20, 20)), (3, (180, 20)), (8, (20, 130)), (6, (125, 75))])
def test_an_overlay_is_bright_at_the_peak_of_the_map(patch, point):
    gray = Image.new("RGB", (200, 150), (120, 120, 120))
    result = overlay(gray, word(patch=patch), GRID)
    elsewhere = (199 - point[0], 149 - point[1]) if patch != 6 else (20, 20)
    assert result.size == (200, 150)
    assert brightness(result, *point) > brightness(result, *elsewhere) + 100


def test_a_heat_map_is_limited_to_the_area_of_the_patches():
    gray = Image.new("RGB", (200, 100), (120, 120, 120))
    view = ImageView(torch.zeros(3, 48, 64), (400, 200), Box(200, 0, 400, 200), "png", 1)
    result = heat_map(gray, [1.0] * 12, GRID, view)  # a copy of half the size
    assert brightness(result, 150, 50) > brightness(result, 50, 50) + 100


def test_a_contact_sheet_has_one_tile_per_word_and_one_for_the_image():
    image = Image.new("RGB", (640, 480), (90, 120, 150))
    for count in (0, 1, 4, 5, 12):
        caption = Caption("a dog " * count, tuple(word() for _ in range(count)), -1.0, "stop")
        sheet = contact_sheet(image, caption, GRID)
        columns = min(5, count + 1)
        rows = -(-(count + 1) // columns)
        assert sheet.width == columns * 230 + 10
        assert sheet.height >= rows * 165


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (224, 5000)])
def test_a_contact_sheet_of_an_image_of_extreme_shape_is_small(size):
    caption = Caption("a dog", (word(), word()), -1.0, "stop")
    sheet = contact_sheet(Image.new("RGB", size, "gray"), caption, GRID)
    assert sheet.width * sheet.height < 1_000_000


def test_an_overlay_of_a_word_without_a_map_is_rejected():
    with pytest.raises(ValueError, match="no map"):
        overlay(Image.new("RGB", (10, 10)), word(patch=None), GRID)


def test_a_heat_map_of_two_sequences_is_well_formed_xml_and_escapes_its_words():
    svg = sequence_map("a < b", ["हम", "<x>"], ["we", "are & be"], [[0.75, 0.25], [0.1, 0.9]])
    root = ElementTree.fromstring(svg)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"हम", "<x>", "we", "are & be", "0.75", "0.90"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 5
