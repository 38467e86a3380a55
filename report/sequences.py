"""Heat map of two sequences as SVG: rows are output words, columns input words. The viewer's fonts render the text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL_WIDTH, _CELL_HEIGHT = 92, 44  # pixels
_MARGIN_LEFT, _MARGIN_TOP = 130, 84  # pixels
_LIGHT, _DARK = (250, 246, 240), (176, 34, 52)


def sequence_map(title: str, outputs: Sequence[str], inputs: Sequence[str], weights: Sequence[Sequence[float]]) -> str:
    """Return an SVG of attention weights (outputs, inputs); a weight of 1 has the darkest color."""
    width, height = _MARGIN_LEFT + _CELL_WIDTH * len(inputs) + 16, _MARGIN_TOP + _CELL_HEIGHT * len(outputs) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Noto Sans, Noto Sans Devanagari, Nirmala UI, Kohinoor Devanagari, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="14" fill="#222222">{escape(title)}</text>',
    ]
    for column, word in enumerate(inputs):
        x = _MARGIN_LEFT + _CELL_WIDTH * (column + 0.5)
        parts.append(_text(x, _MARGIN_TOP - 12, word, "middle", 15))
    for row, (word, values) in enumerate(zip(outputs, weights, strict=True)):
        y = _MARGIN_TOP + _CELL_HEIGHT * row
        parts.append(_text(_MARGIN_LEFT - 12, y + _CELL_HEIGHT * 0.62, word, "end", 17))
        for column, value in enumerate(values):
            x = _MARGIN_LEFT + _CELL_WIDTH * column
            ink = "#ffffff" if value > 0.55 else "#333333"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 2}" height="{_CELL_HEIGHT - 2}" rx="3" fill="{_color(value)}"/>'
                f'<text x="{x + _CELL_WIDTH / 2 - 1:g}" y="{y + _CELL_HEIGHT * 0.62:g}" font-size="13" text-anchor="middle" '
                f'fill="{ink}">{value:.2f}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, word: str, anchor: str, size: int) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{escape(word)}</text>'


def _color(value: float) -> str:
    share = min(1.0, max(0.0, value))
    mixed = (round(low + (high - low) * share) for low, high in zip(_LIGHT, _DARK, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
