"""An image with a word's map over it, and the contact sheet of a whole caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from model import Box, Caption, ImageView, PatchGrid, Word, resample_map

_OPACITY = 0.8  # of the peak
_DIMMED = 0.55  # brightness of what the map leaves dark
_TILE = 220  # width of a tile, pixels
_COLUMNS = 5
_GAP = 10
_LINE = 18  # height of a line of text, pixels
_INK, _PALE, _PAPER = (20, 20, 24), (110, 110, 118), (255, 255, 255)


def overlay(image: Image.Image, word: Word, grid: PatchGrid, view: ImageView | None = None) -> Image.Image:
    """Return the upright RGB image with the word's map as a heat map: bright at its peak, dim elsewhere.

    `image` may be a smaller copy of the view's image; without a view the patches tile the whole image. Raises ValueError for a
    word without a map.
    """
    if word.map is None:
        raise ValueError(f"the word {word.text!r} has no map; request maps when the caption is made")
    return heat_map(image, word.map.values, grid, view)


def heat_map(image: Image.Image, values: Tensor | Sequence[float], grid: PatchGrid, view: ImageView | None = None) -> Image.Image:
    """Draw patch values (P,) over an image, resampled to its pixels as the option `map_size` does (model.resample_map)."""
    pixels = _pixel_values(torch.as_tensor(values), image.size, grid, view)
    peak = pixels.max()
    scaled = (255 * pixels / peak).round() if peak > 0 else torch.zeros_like(pixels)
    strength = Image.frombytes("L", image.size, scaled.to(torch.uint8).numpy().tobytes())
    dimmed = Image.eval(image, lambda value: int(value * _DIMMED))
    lit = Image.composite(image, dimmed, strength)
    warm = ImageOps.colorize(strength, (60, 0, 90), (255, 230, 80), (240, 70, 40))
    return Image.composite(warm, lit, strength.point(lambda value: int(value * _OPACITY * 0.6)))


def contact_sheet(image: Image.Image, caption: Caption, grid: PatchGrid, view: ImageView | None = None) -> Image.Image:
    """Return the image and one overlay per word, each with its probability and image reliance."""
    scale = min(_TILE / image.width, 2 * _TILE / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    tiles = [(small, "the image", "")]
    tiles += [(overlay(small, word, grid, view), word.text, word_summary(word)) for word in caption.words if word.map is not None]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    title = textwrap.wrap(caption.text, max(12, columns * _TILE // 9)) or [""]
    top = _GAP + len(title) * (_LINE + 6)
    tile_height = small.height + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (_TILE + _GAP) + _GAP, top + rows * tile_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(title):
        draw.text((_GAP, _GAP + line * (_LINE + 6)), text, _INK, _font(18))
    for number, (tile, name, summary) in enumerate(tiles):
        x, y = _GAP + number % columns * (_TILE + _GAP), top + number // columns * tile_height
        sheet.paste(tile, (x, y))
        draw.text((x, y + tile.height + 2), name, _INK, _font(15))
        draw.text((x, y + tile.height + 2 + _LINE), summary, _PALE, _font(11))
    return sheet


def word_summary(word: Word) -> str:
    """Return a word's probability, image reliance and focus as text."""
    text = f"p {word.probability:.2f}"
    if word.image_reliance is not None:
        text += f"   reliance {word.image_reliance:+.1f} nats"
    return text if word.map is None else text + f"   focus {word.map.focus:.2f}"


def _pixel_values(values: Tensor, size: tuple[int, int], grid: PatchGrid, view: ImageView | None) -> Tensor:
    """Return a value per pixel of an image of `size` (width, height): (width * height,)."""
    width, height = size
    covers = Box(0, 0, width, height)
    if view is not None:
        (source_width, source_height), box = view.source_size, view.covers
        across, down = width / source_width, height / source_height
        covers = Box(box.x0 * across, box.y0 * down, box.x1 * across, box.y1 * down)
    return resample_map(values, grid, covers, size, PatchGrid(height, width))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
