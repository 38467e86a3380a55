"""Pointing accuracy of maps: whether the map of a word peaks on the object that the word names.

On synthetic scenes an object is its exact mask, and the center of the patch with the largest value must be inside it. On
photographs an object is the boxes of its class, and the patch with the largest value must overlap one of them (strict: its
center must be inside one). Chance levels are reported with it: the center of the image, the object's share of the area, and
the position of another object.

Shapes: P patches.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpus import Example, Scene, captions_of
from evaluation.calibration import auroc
from evaluation.generation import explain_images, png_bytes
from evaluation.scores import RESAMPLES
from evaluation.synonyms import find_class_mention
from model import Box, Caption, Captioner, CaptionResult, Word, decode_image

_SIZES = (("below 3 %", 0.0, 0.03), ("3 to 10 %", 0.03, 0.1), ("above 10 %", 0.1, math.inf))  # of the image


@dataclass(frozen=True, slots=True)
class Pointing:
    """Shares of 1; `other` and `swapped` are None if no image has two named objects."""

    objects: int
    pointing: float
    center: float  # the center of the image is in the object
    area: float  # the object's share of the image
    other: float | None  # the peak is in another object
    swapped: float | None  # the map has more weight per area on the named object than on another one
    swaps: int
    energy: float = 0.0  # the map's share on the object over the object's share of the image: 1 is chance
    patch_auroc: float = 0.0  # of telling the object's patches from the others by the map
    box_iou: float = 0.0  # of the word's box and the object's box; of a class with several boxes the best
    attributes: float | None = None  # scenes: the peak of a color word is nearer to its own object's center than to any other's
    strict_pointing: float | None = None  # photographs: the center of the peak's patch is in a box
    strict_center: float | None = None  # photographs: the center of the image is in a box
    pointing_interval: list[float] | None = None  # 95 %, over images
    by_size: dict[str, dict[str, float | int]] | None = None  # cases, pointing and center, by the object's share of the image

    def as_json(self) -> dict[str, Any]:
        """Return all fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def scene_pointing(captioner: Captioner, scenes: Sequence[Scene], *, maps: str | None = None) -> Pointing:
    """Explain the exact caption of each scene and judge the map of every shape's name by the shape's mask.

    `maps` is a map method, None for the checkpoint's.
    """
    captions = [captions_of(scene, random.Random(0))[0] for scene in scenes]
    images = [png_bytes(scene.render()) for scene in scenes]
    results = explain_images(captioner, images, [[caption.text] for caption in captions], maps=maps)
    hits, centers, areas, others, swaps = [], [], [], [], []
    quality, attributes, images_of_cases = _Quality(), [], []
    for scene, caption, result in zip(scenes, captions, results, strict=True):
        words = {word.start: word for word in result.captions[0].words}
        masks = [torch.from_numpy(entry.mask) for entry in scene.objects]
        shares = [_patch_shares(mask, result) for mask in masks]
        for named in caption.words:
            values = _map_values(words[named.start])
            x, y = _peak_center(values, result, Box(0, 0, masks[0].size(1), masks[0].size(0)))
            mask = masks[named.object]
            quality.add([words[named.start]], shares[named.object], [_bounds(mask)])
            color = words[caption.text.rindex(" ", 0, named.start - 1) + 1 if " " in caption.text[: named.start - 1] else 0]
            point = _peak_center(_map_values(color), result, Box(0, 0, masks[0].size(1), masks[0].size(0)))
            distances = [math.dist(point, entry.center) for entry in scene.objects]
            if len(distances) > 1:
                attributes.append(distances.index(min(distances)) == named.object)
            images_of_cases.append(scene.name)
            hits.append(bool(mask[int(y), int(x)]))
            centers.append(bool(mask[mask.size(0) // 2, mask.size(1) // 2]))
            areas.append(mask.float().mean().item())
            for index, other in enumerate(masks):
                if index != named.object:
                    others.append(bool(other[int(y), int(x)]))
                    swaps.append(_density(values, shares[named.object]) > _density(values, shares[index]))
    summary = quality.added_to(_summarize(hits, centers, areas, others, swaps))
    summary = _with_sizes(summary, images_of_cases, hits, centers, areas)
    return dataclasses.replace(summary, attributes=mean(attributes) if attributes else None)


def image_pointing(captioner: Captioner, examples: Sequence[Example], *, maps: str | None = None) -> Pointing:
    """Explain human captions of photographs with boxes and judge the maps of the words that name a boxed class.

    One case is a photograph and a class that at least one of its captions names (by the class's name, its last word, its plural
    or a common synonym: synonyms.py). Its score is the mean over the captions that name the class, each by its first such word.
    A peak is a hit if its patch overlaps any box of the class; the patch at the center of the image is judged the same way.
    `maps` is a map method, None for the checkpoint's. Raises DataError that names an image that cannot be read.
    """
    boxed = [example for example in examples if example.objects and example.references]
    results = explain_images(captioner, boxed, [example.references for example in boxed], maps=maps)
    hits, centers, areas, others, swaps, strict_hits, strict_centers = [], [], [], [], [], [], []
    quality, images_of_cases, sizes = _Quality(), [], []
    for example, result in zip(boxed, results, strict=True):
        size = decode_image(example.read(), example.image_limits).upright_size
        masks = class_masks(example, size)
        words_of = {name: words for name in masks if (words := _words_for(name, result.captions))}
        maps_of = {name: [_map_values(word) for word in words] for name, words in words_of.items()}
        shares = {name: _patch_shares(masks[name], result) for name in maps_of}
        center = result.grid.rows // 2 * result.grid.columns + result.grid.columns // 2
        for name, word_maps in maps_of.items():
            overlaps = shares[name] > 0  # (P,)
            quality.add(words_of[name], shares[name], [entry.box for entry in example.objects if entry.name == name])
            peaks = [int(values.argmax()) for values in word_maps]
            images_of_cases.append(example.image_id)
            sizes.append(masks[name].double().mean().item())
            hits.append(mean(bool(overlaps[peak]) for peak in peaks))
            centers.append(bool(overlaps[center]))
            areas.append(overlaps.double().mean().item())
            points = [_peak_center(values, result, Box(0, 0, *size)) for values in word_maps]
            strict_hits.append(mean(bool(masks[name][int(y), int(x)]) for x, y in points))
            strict_centers.append(bool(masks[name][size[1] // 2, size[0] // 2]))
            for other in maps_of:
                if other != name:
                    others.append(mean(bool(shares[other][peak] > 0) for peak in peaks))
                    swaps.append(mean(_density(values, shares[name]) > _density(values, shares[other]) for values in word_maps))
    summary = _with_sizes(_summarize(hits, centers, areas, others, swaps), images_of_cases, hits, centers, sizes)
    return dataclasses.replace(quality.added_to(summary), strict_pointing=mean(strict_hits), strict_center=mean(strict_centers))


def class_masks(example: Example, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return for each boxed class the pixels (height, width) inside any of its boxes; size is (width, height)."""
    masks: dict[str, Tensor] = {}
    for entry in example.objects:
        mask = masks.setdefault(entry.name, torch.zeros(size[1], size[0], dtype=torch.bool))
        box = entry.box
        mask[int(box.y0) : math.ceil(box.y1), int(box.x0) : math.ceil(box.x1)] = True
    return masks


class _Quality:
    """Collects how much of each object's maps lies on it; a case's value is the mean over its words."""

    def __init__(self) -> None:
        self._values: list[tuple[float, float, float]] = []

    def add(self, words: Sequence[Word], shares: Tensor, boxes: Sequence[Box]) -> None:
        """Add a case: the words that name it, the share of every patch that it covers (P,), and its boxes in pixels."""
        inside = (shares >= min(0.5, shares.max().item())).numpy()
        maps = [_map_values(word) for word in words]
        energy = mean(_density(values, shares) for values in maps)
        area = mean(auroc(values.numpy(), inside) for values in maps) if 0 < inside.sum() < len(inside) else 1.0
        overlap = mean(max(box_iou(Box(*(word.box or (0, 0, 0, 0))), box) for box in boxes) for word in words)
        self._values.append((energy, area, overlap))

    def added_to(self, pointing: Pointing) -> Pointing:
        """Return the figures with the means of all cases."""
        energy, area, overlap = (mean(column) for column in zip(*self._values, strict=True))
        return dataclasses.replace(pointing, energy=energy, patch_auroc=area, box_iou=overlap)


def box_iou(first: Box, second: Box) -> float:
    """Return the intersection of two boxes over their union."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (first, second))
    return shared / (areas - shared) if areas > shared else 0.0


def _bounds(mask: Tensor) -> Box:
    """Return the box around a mask (height, width)."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return Box(columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)


def _summarize(
    hits: Sequence[float], centers: Sequence[float], areas: Sequence[float], others: Sequence[float], swaps: Sequence[float]
) -> Pointing:
    return Pointing(
        len(hits),
        mean(hits),
        mean(centers),
        mean(areas),
        mean(others) if others else None,
        mean(swaps) if swaps else None,
        len(swaps),
    )


def _with_sizes(
    summary: Pointing, images: Sequence[str], hits: Sequence[float], centers: Sequence[float], sizes: Sequence[float]
) -> Pointing:
    """Return the figures with those of small and large objects, and with the interval of pointing (Efron 1979, percentiles)."""
    by_size: dict[str, dict[str, float | int]] = {}
    for name, low, high in _SIZES:
        own = [index for index, size in enumerate(sizes) if low <= size < high]
        if own:
            figures = {"pointing": mean(hits[index] for index in own), "center": mean(centers[index] for index in own)}
            by_size[name] = {"objects": len(own), **figures}
    names, image_of = np.unique(np.asarray(images), return_inverse=True)
    sums, counts = np.bincount(image_of, np.asarray(hits, np.float64)), np.bincount(image_of)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))  # images, with replacement
    low, high = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [2.5, 97.5])
    return dataclasses.replace(summary, by_size=by_size, pointing_interval=[float(low), float(high)])


def _map_values(word: Word) -> Tensor:
    assert word.map is not None, "explanations are computed with maps"
    return word.map.values


def _peak_center(values: Tensor, result: CaptionResult, covers: Box) -> tuple[float, float]:
    """Return the center, in pixels, of the patch with the largest value."""
    patch = covers.cell(result.grid, int(values.argmax()))
    return (patch.x0 + patch.x1) / 2, (patch.y0 + patch.y1) / 2


def _patch_shares(mask: Tensor, result: CaptionResult) -> Tensor:
    """Return the share of every patch that a mask (height, width) covers: (P,)."""
    size = (result.grid.rows, result.grid.columns)
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None].double(), size).flatten()


def _density(values: Tensor, shares: Tensor) -> float:
    """Return the map's share on an object divided by the object's share of the image."""
    area = shares.mean().item()
    return (values * shares).sum().item() / area if area else 0.0


def _words_for(name: str, captions: Sequence[Caption]) -> list[Word]:
    """Return, from each caption that names the class, the first word that does."""
    words = []
    for caption in captions:
        offset = find_class_mention(name, caption.text)
        if offset is not None:
            words += [word for word in caption.words if word.start <= offset < word.end]
    return words
