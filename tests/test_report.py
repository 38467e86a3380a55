"""Overlays, contact sheets and heat maps: the right size, and bright where the map is."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from PIL import Image

from model import Box, Caption, PatchGrid, Word, WordMap
from report import contact_sheet, heat, overlay, sequence_map

GRID = PatchGrid(3, 4)


def word(text: str = "dog", cell: int | None = 0) -> Word:
    if cell is None:
        return Word(text, 0, len(text), -0.5, None, None, None)
    values = torch.zeros(12)
    values[cell] = 1.0
    return Word(text, 0, len(text), -0.5, 1.5, WordMap(values, 0.9), (0, 0, 10, 10))


def brightness(image: Image.Image, x: int, y: int) -> int:
    return sum(image.getpixel((x, y)))


@pytest.mark.parametrize(("cell", "place"), [(0, (20, 20)), (3, (180, 20)), (8, (20, 130)), (6, (125, 75))])
def test_an_overlay_is_bright_where_the_word_looked(cell, place):
    grey = Image.new("RGB", (200, 150), (120, 120, 120))
    found = overlay(grey, word(cell=cell), GRID)
    elsewhere = (199 - place[0], 149 - place[1]) if cell != 6 else (20, 20)
    assert found.size == (200, 150)
    assert brightness(found, *place) > brightness(found, *elsewhere) + 100


def test_heat_stays_in_what_the_cells_cover():
    grey = Image.new("RGB", (200, 100), (120, 120, 120))
    found = heat(grey, [1.0] * 12, GRID, Box(100, 0, 200, 100))
    assert brightness(found, 150, 50) > brightness(found, 50, 50) + 100


def test_a_contact_sheet_has_a_tile_a_word_and_one_for_the_photograph():
    photograph = Image.new("RGB", (640, 480), (90, 120, 150))
    for count in (0, 1, 4, 5, 12):
        caption = Caption("a dog " * count, tuple(word() for _ in range(count)), -1.0, "stop")
        sheet = contact_sheet(photograph, caption, GRID)
        columns = min(5, count + 1)
        rows = -(-(count + 1) // columns)
        assert sheet.width == columns * 230 + 10
        assert sheet.height >= rows * 165


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (224, 5000)])
def test_a_contact_sheet_of_an_extreme_picture_stays_small(size):
    caption = Caption("a dog", (word(), word()), -1.0, "stop")
    sheet = contact_sheet(Image.new("RGB", size, "grey"), caption, GRID)
    assert sheet.width * sheet.height < 1_000_000


def test_a_word_without_a_map_cannot_be_drawn():
    with pytest.raises(ValueError, match="no map"):
        overlay(Image.new("RGB", (10, 10)), word(cell=None), GRID)


def test_a_heat_map_of_two_sequences_is_well_formed_and_escapes_its_words():
    picture = sequence_map("a < b", ["हम", "<x>"], ["we", "are & be"], [[0.75, 0.25], [0.1, 0.9]])
    root = ElementTree.fromstring(picture)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"हम", "<x>", "we", "are & be", "0.75", "0.90"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 5
