"""A photograph with a word's map laid over it, and the contact sheet of a whole caption.

Knows pictures, captions and maps. Does not know how they were made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from model import Box, Caption, PatchGrid, Word

_STRENGTH = 0.8  # opacity of the peak
_DIMMED = 0.55  # brightness of what a word did not look at
_TILE = 220  # pixels a tile is wide
_COLUMNS = 5
_GAP = 10
_LINE = 18  # pixels a line of text is high
_INK, _PALE, _PAPER = (20, 20, 24), (110, 110, 118), (255, 255, 255)


def overlay(photograph: Image.Image, word: Word, grid: PatchGrid, seen: Box | None = None) -> Image.Image:
    """Return the upright RGB photograph with the word's map as heat: bright where it looked, dim elsewhere.

    `seen` is what the cells tile, in shares of width and height; the whole photograph where it is None. A word without a map
    raises ValueError.
    """
    if word.map is None:
        raise ValueError(f"the word {word.text!r} has no map; ask for maps when the caption is made")
    width, height = photograph.size
    covers = None if seen is None else Box(seen.x0 * width, seen.y0 * height, seen.x1 * width, seen.y1 * height)
    return heat(photograph, word.map.values.tolist(), grid, covers)


def heat(photograph: Image.Image, values: Sequence[float], grid: PatchGrid, covers: Box | None = None) -> Image.Image:
    """Lay cell values over a photograph; `covers` is what the cells tile, the whole picture where it is None."""
    peak = max(values)
    small = Image.new("L", (grid.columns, grid.rows))
    small.putdata([round(255 * value / peak) if peak > 0 else 0 for value in values])
    box = covers or Box(0, 0, *photograph.size)
    place = (round(box.x0), round(box.y0), round(box.x1), round(box.y1))
    strength = Image.new("L", photograph.size)
    strength.paste(small.resize((place[2] - place[0], place[3] - place[1]), Image.Resampling.BICUBIC), place[:2])
    dimmed = Image.eval(photograph, lambda value: int(value * _DIMMED))
    lit = Image.composite(photograph, dimmed, strength)
    warm = ImageOps.colorize(strength, (60, 0, 90), (255, 230, 80), (240, 70, 40))
    return Image.composite(warm, lit, strength.point(lambda value: int(value * _STRENGTH * 0.6)))


def contact_sheet(photograph: Image.Image, caption: Caption, grid: PatchGrid, seen: Box | None = None) -> Image.Image:
    """Return the photograph and one overlay a word, each with its probability and image reliance.

    `seen` is what the cells tile, in shares of width and height; the whole picture where it is None.
    """
    scale = min(_TILE / photograph.width, 2 * _TILE / photograph.height)
    size = (max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale)))
    small = photograph.resize(size, Image.Resampling.LANCZOS)
    tiles = [(small, "the photograph", "")]
    tiles += [(overlay(small, word, grid, seen), word.text, word_summary(word)) for word in caption.words if word.map is not None]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    title = textwrap.wrap(caption.text, max(12, columns * _TILE // 9)) or [""]
    top = _GAP + len(title) * (_LINE + 6)
    high = small.height + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (_TILE + _GAP) + _GAP, top + rows * high + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(title):
        draw.text((_GAP, _GAP + line * (_LINE + 6)), text, _INK, _font(18))
    for number, (tile, name, figures) in enumerate(tiles):
        x, y = _GAP + number % columns * (_TILE + _GAP), top + number // columns * high
        sheet.paste(tile, (x, y))
        draw.text((x, y + tile.height + 2), name, _INK, _font(15))
        draw.text((x, y + tile.height + 2 + _LINE), figures, _PALE, _font(11))
    return sheet


def word_summary(word: Word) -> str:
    """Return a word's probability, image reliance and focus in words."""
    text = f"p {word.probability:.2f}"
    if word.image_reliance is not None:
        text += f"   reliance {word.image_reliance:+.1f} nats"
    return text if word.map is None else text + f"   focus {word.map.focus:.2f}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
