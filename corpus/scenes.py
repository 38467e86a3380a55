"""Synthetic scenes with an exact mask per object, deterministic by seed and number.

A scene has one to four objects of 8 shapes, 8 colors and 3 sizes on a textured background. Each object covers 1 to 12 % of
the image, and at most 20 % of it is hidden. Six of the 64 color-shape pairs are held out from training: captions of scenes
with them show whether a model composes words or memorizes pairs. scene_captions.py writes and judges captions.
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
COLORS = {
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
AREAS: dict[Size, tuple[float, float]] = {  # range of an object's share of the image
    "small": (0.012, 0.022),
    "medium": (0.036, 0.055),
    "large": (0.085, 0.118),
}
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
MAX_HIDDEN = 0.2  # share of an object

_SUPERSAMPLING = 2  # shapes are drawn this many times larger, then reduced: smooth edges
_AREA_RATIOS = {  # share of its bounding square that each shape fills, measured at 2,000 x 2,000 pixels
    "circle": 0.785, "square": 1.0, "triangle": 0.5, "star": 0.309, "heart": 0.518, "cross": 0.557, "ring": 0.548,
    "crescent": 0.403,
}  # fmt: skip
_MIN_DISTANCE = 0.1 * SIDE  # pixels between two centers along one axis; with less, no relation would be clear


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene. mask (224, 224) bool is its visible part; center (x, y) in pixels is that of the full shape."""

    shape: str
    color: str
    size: Size
    center: tuple[float, float]
    mask: Mask

    @property
    def pair(self) -> tuple[str, str]:
        """Color and shape."""
        return self.color, self.shape

    @property
    def area(self) -> float:
        """Share of the image that the visible part covers."""
        return float(self.mask.mean())

    @property
    def box(self) -> Box:
        """Bounding box of the visible part, in pixels."""
        rows, columns = np.nonzero(self.mask)
        return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One shape to draw. center (x, y) and side are in pixels of the square around the full shape."""

    shape: str
    color: str
    size: Size
    center: tuple[float, float]
    side: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """The layers of a scene in drawing order, and its objects, largest first. `render` makes the image."""

    name: str  # seed, number and unseen: it seeds the background
    layers: tuple[_Layer, ...]
    objects: tuple[SceneObject, ...]

    @property
    def unseen(self) -> bool:
        """Whether the scene has a color-shape pair that is held out from training."""
        return any(entry.pair in UNSEEN_PAIRS for entry in self.objects)

    def render(self) -> Image.Image:
        """Return the image, 224 x 224 RGB; the same scene always gives the same pixels."""
        background = _background(random.Random(f"background {self.name}"))
        canvas = background.resize((SIDE * _SUPERSAMPLING, SIDE * _SUPERSAMPLING), Image.Resampling.BICUBIC)
        for layer in self.layers:
            canvas.paste(layer.rgb, mask=silhouette(layer.shape, layer.center, layer.side))
        return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def draw_scene(seed: int, number: int, *, unseen: bool = False) -> Scene:
    """Sample scene `number` of the series `seed`; with `unseen` it has a color-shape pair that is held out from training."""
    name = f"{seed} {number} {unseen}"
    rng = random.Random(f"scene {name}")
    count = rng.randint(1, 4)
    while True:
        layers = _sample_layers(rng, count, unseen)
        masks = _visible_masks([_mask(silhouette(layer.shape, layer.center, layer.side)) for layer in layers])
        if masks is not None:
            break
    objects = [
        SceneObject(layer.shape, layer.color, layer.size, layer.center, mask) for layer, mask in zip(layers, masks, strict=True)
    ]
    return Scene(name, tuple(layers), tuple(sorted(objects, key=lambda entry: -entry.area)))


def silhouette(shape: str, center: tuple[float, float], side: float) -> Image.Image:
    """Return a shape in white on black, 448 x 448 in mode L; center and side are in pixels of the 224 x 224 scene."""
    canvas = Image.new("L", (SIDE * _SUPERSAMPLING, SIDE * _SUPERSAMPLING), 0)
    draw = ImageDraw.Draw(canvas)
    x, y, r = center[0] * _SUPERSAMPLING, center[1] * _SUPERSAMPLING, side * _SUPERSAMPLING / 2
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


def _sample_layers(rng: random.Random, count: int, unseen: bool) -> list[_Layer]:
    """Sample different color-shape pairs with their sizes and positions."""
    pairs: list[tuple[str, str]] = []
    if unseen:
        pairs.append(rng.choice(sorted(UNSEEN_PAIRS)))
    while len(pairs) < count:
        pair = (rng.choice(sorted(COLORS)), rng.choice(SHAPES))
        if pair not in pairs and pair not in UNSEEN_PAIRS:
            pairs.append(pair)
    rng.shuffle(pairs)
    layers: list[_Layer] = []
    for color, shape in pairs:
        size = rng.choice(list(AREAS))
        side = math.sqrt(rng.uniform(*AREAS[size]) / _AREA_RATIOS[shape]) * SIDE
        half = side / 2 + 1
        center = (rng.uniform(half, SIDE - half), rng.uniform(half, SIDE - half))
        red, green, blue = (min(255, max(0, value + rng.randint(-10, 10))) for value in COLORS[color])
        layers.append(_Layer(shape, color, size, center, side, (red, green, blue)))
    return layers


def _visible_masks(masks: list[Mask]) -> list[Mask] | None:
    """Return the visible part of each shape when later shapes cover earlier ones, or None if the scene must be rejected.

    A scene is rejected if a shape is hidden too much, too small or too large, or if two shapes are too close.
    """
    visible_masks: list[Mask] = []
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    for mask in reversed(masks):
        visible = mask & ~covered
        if visible.sum() < (1 - MAX_HIDDEN) * mask.sum() or not 0.01 <= visible.mean() <= 0.12:
            return None
        visible_masks.append(visible)
        covered |= mask
    centers = [np.argwhere(mask).mean(axis=0) for mask in visible_masks]
    for index, one in enumerate(centers):
        for other in centers[index + 1 :]:
            if np.abs(one - other).max() < _MIN_DISTANCE:
                return None
    return visible_masks[::-1]


def _mask(image: Image.Image) -> Mask:
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small) >= 128


def _star() -> list[tuple[float, float]]:
    angles = [math.pi * step / 5 for step in range(10)]
    radii = [1.0 if step % 2 == 0 else 0.42 for step in range(10)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * step / 60 for step in range(60)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17) for t in angles
    ]


def _background(rng: random.Random) -> Image.Image:
    """Render a muted texture: clouds, stripes or checks of two colors with little saturation."""
    brightness = rng.uniform(0.5, 0.92)
    first, second = (_muted_color(rng, brightness + rng.uniform(-0.12, 0.12)) for _ in range(2))
    kind = rng.choice(("clouds", "stripes", "checks", "plain"))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    noise = np.random.default_rng(rng.getrandbits(32))
    if kind == "clouds":
        coarse = Image.fromarray(noise.integers(0, 256, (rng.randint(4, 16),) * 2, dtype=np.uint8))
        share = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    elif kind == "stripes":
        angle, period = rng.uniform(0, math.pi), rng.uniform(8, 40)
        share = np.sin((rows * math.sin(angle) + columns * math.cos(angle)) * 2 * math.pi / period) * 0.5 + 0.5
    elif kind == "checks":
        period = rng.randint(8, 32)
        share = ((rows // period + columns // period) % 2).astype(float)
    else:
        share = np.zeros((SIDE, SIDE))
    mixed = first + (second - first) * share[..., None] + noise.normal(0, rng.uniform(1, 9), (SIDE, SIDE, 1))
    image = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


def _muted_color(rng: random.Random, brightness: float) -> NDArray[np.float64]:
    tint = np.array([rng.uniform(-0.07, 0.07) for _ in range(3)])
    return (np.clip(brightness, 0.35, 1.0) + tint).clip(0, 1) * 255
