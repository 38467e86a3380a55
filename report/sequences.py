"""A heat map of two sequences as SVG: rows are the output's words, columns the input's. The reader's fonts draw them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL, _HIGH = 92, 44  # pixels a cell is wide and high
_LEFT, _TOP = 130, 84
_LIGHT, _DARK = (250, 246, 240), (176, 34, 52)


def sequence_map(title: str, outputs: Sequence[str], inputs: Sequence[str], weights: Sequence[Sequence[float]]) -> str:
    """Return an SVG of weights (outputs, inputs): each row says how an output word is made of the input words."""
    width, height = _LEFT + _CELL * len(inputs) + 16, _TOP + _HIGH * len(outputs) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Noto Sans, Noto Sans Devanagari, Nirmala UI, Kohinoor Devanagari, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="14" fill="#222222">{escape(title)}</text>',
    ]
    for column, word in enumerate(inputs):
        x = _LEFT + _CELL * (column + 0.5)
        parts.append(_text(x, _TOP - 12, word, "middle", 15))
    for row, (word, values) in enumerate(zip(outputs, weights, strict=True)):
        y = _TOP + _HIGH * row
        parts.append(_text(_LEFT - 12, y + _HIGH * 0.62, word, "end", 17))
        for column, value in enumerate(values):
            x = _LEFT + _CELL * column
            ink = "#ffffff" if value > 0.55 else "#333333"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_HIGH - 2}" rx="3" fill="{_colour(value)}"/>'
                f'<text x="{x + _CELL / 2 - 1:g}" y="{y + _HIGH * 0.62:g}" font-size="13" text-anchor="middle" '
                f'fill="{ink}">{value:.2f}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, word: str, anchor: str, size: int) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{escape(word)}</text>'


def _colour(value: float) -> str:
    share = min(1.0, max(0.0, value))
    mixed = (round(low + (high - low) * share) for low, high in zip(_LIGHT, _DARK, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
