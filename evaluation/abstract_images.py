"""Images that are no photographs: blank, noise, gradients, pages of text, line drawings. A caption of one should be uncertain."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE = 448
_KINDS = 6


def abstract_images(count: int, seed: int = 0) -> list[Image.Image]:
    """Return `count` rendered images, of all kinds in turn, deterministic by seed."""
    return [_render(number % _KINDS, random.Random(f"not a photograph {seed} {number}")) for number in range(count)]


def _render(kind: int, rng: random.Random) -> Image.Image:
    if kind == 0:
        level = rng.choice([0, 0, 255, rng.randrange(256)])
        return Image.new("RGB", (_SIZE, _SIZE), (level, level, level))
    if kind == 1:
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)
        return Image.fromarray(noise)
    if kind == 2:
        ramp = Image.linear_gradient("L").resize((_SIZE, _SIZE)).rotate(rng.choice([0, 90, 180, 270]))
        shares = [rng.random() for _ in range(3)]
        return Image.merge("RGB", [ramp.point([int(value * share) for value in range(256)]) for share in shares])
    image = Image.new("RGB", (_SIZE, _SIZE), "white")
    draw = ImageDraw.Draw(image)
    if kind == 3:
        _page(draw, rng)
    elif kind == 4:
        for _ in range(rng.randint(8, 30)):
            points = [rng.randrange(_SIZE) for _ in range(4)]
            draw.line(points, fill="black", width=rng.randint(1, 4))
    else:
        _chart(draw, rng)
    return image


def _page(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """Lines of random words, as on a printed page."""
    size = rng.randint(10, 20)
    font = ImageFont.load_default(size)
    for top in range(24, _SIZE - 24, round(size * 1.5)):
        words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(14)]
        draw.text((24, top), " ".join(words)[: (_SIZE - 40) * 2 // size], fill=(30, 30, 30), font=font)


def _chart(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """Bars over an axis."""
    draw.line((40, 40, 40, _SIZE - 40, _SIZE - 40, _SIZE - 40), fill="black", width=2)
    width = rng.randint(20, 50)
    for left in range(60, _SIZE - 60 - width, round(width * 1.5)):
        draw.rectangle((left, rng.randint(60, _SIZE - 60), left + width, _SIZE - 42), fill=(70, 110, 170))
