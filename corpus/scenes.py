"""Drawn scenes with exact captions and an exact mask for every object word, deterministic by seed and number.

One to four objects of 8 shapes, 8 colours and 3 sizes on a textured background, each 1 to 12 % of the picture, none
covered by more than 20 %. Six of the 64 colour-shape pairs never occur unless they are asked for: what a captioner says
of them shows whether it composes words or remembers pairs. What a caption claims is judged in scene_captions.py.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model import Box

Size = Literal["small", "medium", "large"]
Mask = NDArray[np.bool_]

SIDE = 224  # pixels; a scene is square
COLOURS = {
    "red": (214, 32, 36),
    "orange": (247, 136, 12),
    "yellow": (250, 222, 40),
    "green": (36, 150, 50),
    "blue": (32, 82, 214),
    "purple": (126, 40, 168),
    "pink": (250, 128, 190),
    "black": (16, 16, 18),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent")
AREAS: dict[Size, tuple[float, float]] = {"small": (0.012, 0.022), "medium": (0.036, 0.055), "large": (0.085, 0.118)}
UNSEEN_PAIRS = frozenset(
    {
        ("red", "heart"),
        ("green", "star"),
        ("blue", "triangle"),
        ("yellow", "ring"),
        ("purple", "square"),
        ("pink", "cross"),
    }
)
MOST_COVERED = 0.2

_FINE = 2  # drawn this many times larger, then reduced: smooth edges
_UNIT_AREA = {  # share of its bounding square that each shape fills, measured on a drawing of 2,000 pixels a side
    "circle": 0.785, "square": 1.0, "triangle": 0.5, "star": 0.309, "heart": 0.518, "cross": 0.557, "ring": 0.548,
    "crescent": 0.403,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object. mask (224, 224) bool is what can be seen of it; centre in pixels of its whole shape."""

    shape: str
    colour: str
    size: Size
    centre: tuple[float, float]
    mask: Mask

    @property
    def pair(self) -> tuple[str, str]:
        return self.colour, self.shape

    @property
    def area(self) -> float:
        """Visible share of the picture."""
        return float(self.mask.mean())

    @property
    def box(self) -> Box:
        rows, columns = np.nonzero(self.mask)
        return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What is drawn, in drawing order. side in pixels of the square around the whole shape."""

    shape: str
    colour: str
    size: Size
    centre: tuple[float, float]
    side: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """A planned picture and its objects, largest first; it is painted when it is asked for."""

    name: str  # seed and number: the background's dice
    layers: tuple[_Layer, ...]
    objects: tuple[SceneObject, ...]

    @property
    def unseen(self) -> bool:
        """Return whether a pair occurs that training never shows."""
        return any(entry.pair in UNSEEN_PAIRS for entry in self.objects)

    def paint(self) -> Image.Image:
        """Return the picture, 224 x 224 RGB, always the same."""
        ground = _background(random.Random(f"background {self.name}"))
        canvas = ground.resize((SIDE * _FINE, SIDE * _FINE), Image.Resampling.BICUBIC)
        for layer in self.layers:
            canvas.paste(layer.rgb, mask=_outline(layer.shape, layer.centre, layer.side))
        return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def draw_scene(seed: int, number: int, *, unseen: bool = False) -> Scene:
    """Plan scene `number` of the series `seed`; with `unseen` at least one of its pairs is held out from training."""
    name = f"{seed} {number} {unseen}"
    dice = random.Random(f"scene {name}")
    count = dice.randint(1, 4)
    while True:
        layers = _layers(dice, count, unseen)
        masks = _visible([_mask(_outline(layer.shape, layer.centre, layer.side)) for layer in layers])
        if masks is not None:
            break
    objects = [
        SceneObject(layer.shape, layer.colour, layer.size, layer.centre, mask) for layer, mask in zip(layers, masks, strict=True)
    ]
    return Scene(name, tuple(layers), tuple(sorted(objects, key=lambda entry: -entry.area)))


def _layers(dice: random.Random, count: int, unseen: bool) -> list[_Layer]:
    """Choose pairs that differ, sizes and places."""
    pairs: list[tuple[str, str]] = []
    if unseen:
        pairs.append(dice.choice(sorted(UNSEEN_PAIRS)))
    while len(pairs) < count:
        pair = (dice.choice(sorted(COLOURS)), dice.choice(SHAPES))
        if pair not in pairs and pair not in UNSEEN_PAIRS:
            pairs.append(pair)
    dice.shuffle(pairs)
    layers: list[_Layer] = []
    for colour, shape in pairs:
        size = dice.choice(list(AREAS))
        side = math.sqrt(dice.uniform(*AREAS[size]) / _UNIT_AREA[shape]) * SIDE
        half = side / 2 + 1
        centre = (dice.uniform(half, SIDE - half), dice.uniform(half, SIDE - half))
        red, green, blue = (min(255, max(0, value + dice.randint(-10, 10))) for value in COLOURS[colour])
        layers.append(_Layer(shape, colour, size, centre, side, (red, green, blue)))
    return layers


def _visible(masks: list[Mask]) -> list[Mask] | None:
    """Return what can be seen of each shape when later ones lie over earlier ones; None if one is covered too much."""
    seen: list[Mask] = []
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    for mask in reversed(masks):
        visible = mask & ~covered
        if visible.sum() < (1 - MOST_COVERED) * mask.sum() or not 0.01 <= visible.mean() <= 0.12:
            return None
        seen.append(visible)
        covered |= mask
    centres = [np.argwhere(mask).mean(axis=0) for mask in seen]
    for index, one in enumerate(centres):
        for other in centres[index + 1 :]:
            if np.abs(one - other).max() < 0.1 * SIDE:  # no relation would be clear
                return None
    return seen[::-1]


def _mask(outline: Image.Image) -> Mask:
    small = outline.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small) >= 128


def _outline(shape: str, centre: tuple[float, float], side: float) -> Image.Image:
    """Draw a shape's silhouette, white on black, at the fine resolution."""
    canvas = Image.new("L", (SIDE * _FINE, SIDE * _FINE), 0)
    draw = ImageDraw.Draw(canvas)
    x, y, r = centre[0] * _FINE, centre[1] * _FINE, side * _FINE / 2
    box = (x - r, y - r, x + r, y + r)
    if shape == "square":
        draw.rectangle(box, fill=255)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=255)
    elif shape == "cross":
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=255)
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=255)
    elif shape in ("star", "heart"):
        draw.polygon([(x + r * dx, y + r * dy) for dx, dy in (_star() if shape == "star" else _heart())], fill=255)
    else:
        draw.ellipse(box, fill=255)
        if shape == "ring":
            inner = 0.55 * r
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=0)
        elif shape == "crescent":
            shift = 0.55 * r
            draw.ellipse((x - 0.8 * r + shift, y - 0.8 * r, x + 0.8 * r + shift, y + 0.8 * r), fill=0)
    return canvas


def _star() -> list[tuple[float, float]]:
    turns = [math.pi * step / 5 for step in range(10)]
    return [
        ((1.0 if step % 2 == 0 else 0.42) * math.sin(turn), -(1.0 if step % 2 == 0 else 0.42) * math.cos(turn))
        for step, turn in enumerate(turns)
    ]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * step / 60 for step in range(60)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17) for t in turns
    ]


def _background(dice: random.Random) -> Image.Image:
    """Paint a muted texture: clouds, stripes or checks of two colours with little saturation."""
    light = dice.uniform(0.5, 0.92)
    first, second = (_muted(dice, light + dice.uniform(-0.12, 0.12)) for _ in range(2))
    kind = dice.choice(("clouds", "stripes", "checks", "plain"))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    noise = np.random.default_rng(dice.getrandbits(32))
    if kind == "clouds":
        coarse = Image.fromarray(noise.integers(0, 256, (dice.randint(4, 16),) * 2, dtype=np.uint8))
        share = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    elif kind == "stripes":
        turn, period = dice.uniform(0, math.pi), dice.uniform(8, 40)
        share = np.sin((rows * math.sin(turn) + columns * math.cos(turn)) * 2 * math.pi / period) * 0.5 + 0.5
    elif kind == "checks":
        cell = dice.randint(8, 32)
        share = ((rows // cell + columns // cell) % 2).astype(float)
    else:
        share = np.zeros((SIDE, SIDE))
    mixed = first + (second - first) * share[..., None] + noise.normal(0, dice.uniform(1, 9), (SIDE, SIDE, 1))
    picture = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(dice.uniform(0, 0.8)))


def _muted(dice: random.Random, light: float) -> NDArray[np.float64]:
    tint = np.array([dice.uniform(-0.07, 0.07) for _ in range(3)])
    return (np.clip(light, 0.35, 1.0) + tint).clip(0, 1) * 255
