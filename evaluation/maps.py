"""Whether maps point at what their words name: on drawn scenes by exact masks, on photographs by boxes.

Pointing: the cell with the largest value lies on the object; on scenes by its centre and the exact mask, on photographs
where it touches a box of the class (and, stricter, where its centre lies in one). Beside it stands what a map that knows
nothing would reach: the centre of the picture, the object's share of the area, and another object's place.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from corpus import LOCAL_IMAGE_LIMITS, Example, Scene, captions_of
from evaluation.generate import explain_images, png_bytes
from evaluation.synonyms import named_at
from model import Box, Caption, Captioner, CaptionResult, Word, decode_image


@dataclass(frozen=True, slots=True)
class Pointing:
    """Shares of 1; `other` and `swapped` are None where no picture has two named objects."""

    objects: int
    pointing: float
    centre: float  # the centre of the picture lies in the object
    area: float  # the object's share of the picture
    other: float | None  # the peak lies in another object
    swapped: float | None  # more map per area on the own object than on another one
    swaps: int
    strict_pointing: float | None = None  # photographs: the centre of the peak's cell lies in a box
    strict_centre: float | None = None  # photographs: the centre of the picture does

    def as_json(self) -> dict[str, float | int | None]:
        return {name: getattr(self, name) for name in self.__slots__}


def scene_pointing(captioner: Captioner, scenes: Sequence[Scene]) -> Pointing:
    """Explain the exact caption of each scene and judge the map of every shape's name by the shape's mask."""
    captions = [captions_of(scene, random.Random(0))[0] for scene in scenes]
    pictures = [png_bytes(scene.render()) for scene in scenes]
    answers = explain_images(captioner, pictures, [[caption.text] for caption in captions])
    hits, centres, areas, others, swaps = [], [], [], [], []
    for scene, caption, answer in zip(scenes, captions, answers, strict=True):
        found = {word.start: word for word in answer.captions[0].words}
        masks = [torch.from_numpy(entry.mask) for entry in scene.objects]
        shares = [_cell_shares(mask, answer) for mask in masks]
        for named in caption.words:
            word = found[named.start]
            values = _values(word)
            x, y = _peak(values, answer, Box(0, 0, masks[0].size(1), masks[0].size(0)))
            mask = masks[named.object]
            hits.append(bool(mask[int(y), int(x)]))
            centres.append(bool(mask[mask.size(0) // 2, mask.size(1) // 2]))
            areas.append(mask.float().mean().item())
            for index, other in enumerate(masks):
                if index != named.object:
                    others.append(bool(other[int(y), int(x)]))
                    swaps.append(_density(values, shares[named.object]) > _density(values, shares[index]))
    return _summary(hits, centres, areas, others, swaps)


def image_pointing(
    captioner: Captioner, examples: Sequence[Example], *, cases: list[dict[str, object]] | None = None
) -> Pointing:
    """Explain human captions of photographs with boxes and judge the maps of the words that name a boxed class.

    A case is a photograph and a class that one of its captions names (the class's name, its last word, its plural, or a
    common synonym: synonyms.py); its figure is the mean over the captions that name it, each by its first such word.
    A peak counts where its cell touches any box of the class; so does the cell at the centre of the picture.
    """
    chosen = [example for example in examples if example.objects and example.references]
    answers = explain_images(captioner, chosen, [e.references for e in chosen])
    hits, centres, areas, others, swaps, strict, strict_centres = [], [], [], [], [], [], []
    for example, answer in zip(chosen, answers, strict=True):
        size = decode_image(example.read(), LOCAL_IMAGE_LIMITS).upright_size
        masks = class_masks(example, size)
        named = {name: [_values(word) for word in _naming(name, answer.captions)] for name in masks}
        named = {name: maps for name, maps in named.items() if maps}
        shares = {name: _cell_shares(masks[name], answer) for name in named}
        middle = answer.grid.rows // 2 * answer.grid.columns + answer.grid.columns // 2
        for name, maps in named.items():
            touched = shares[name] > 0
            peaks = [int(values.argmax()) for values in maps]
            hits.append(mean(bool(touched[peak]) for peak in peaks))
            centres.append(bool(touched[middle]))
            areas.append(touched.double().mean().item())
            places = [_peak(values, answer, Box(0, 0, *size)) for values in maps]
            strict.append(mean(bool(masks[name][int(y), int(x)]) for x, y in places))
            strict_centres.append(bool(masks[name][size[1] // 2, size[0] // 2]))
            for other in named:
                if other != name:
                    others.append(mean(bool(shares[other][peak] > 0) for peak in peaks))
                    swaps.append(mean(_density(values, shares[name]) > _density(values, shares[other]) for values in maps))
    found = _summary(hits, centres, areas, others, swaps)
    return dataclasses.replace(found, strict_pointing=mean(strict), strict_centre=mean(strict_centres))


def class_masks(example: Example, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return for each boxed class the pixels (height, width) that any of its boxes holds; size is (width, height)."""
    masks: dict[str, Tensor] = {}
    for entry in example.objects:
        mask = masks.setdefault(entry.name, torch.zeros(size[1], size[0], dtype=torch.bool))
        box = entry.box
        mask[int(box.y0) : math.ceil(box.y1), int(box.x0) : math.ceil(box.x1)] = True
    return masks


def _summary(
    hits: Sequence[float], centres: Sequence[float], areas: Sequence[float], others: Sequence[float], swaps: Sequence[float]
) -> Pointing:
    return Pointing(
        len(hits),
        mean(hits),
        mean(centres),
        mean(areas),
        mean(others) if others else None,
        mean(swaps) if swaps else None,
        len(swaps),
    )


def _values(word: Word) -> Tensor:
    assert word.map is not None, "explanations are made with maps"
    return word.map.values


def _peak(values: Tensor, answer: CaptionResult, covers: Box) -> tuple[float, float]:
    """Return the centre, in pixels, of the cell with the largest value."""
    cell = covers.cell(answer.grid, int(values.argmax()))
    return (cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2


def _cell_shares(mask: Tensor, answer: CaptionResult) -> Tensor:
    """Return the share of every cell that a mask (height, width) covers: (cells,)."""
    size = (answer.grid.rows, answer.grid.columns)
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None].double(), size).flatten()


def _density(values: Tensor, shares: Tensor) -> float:
    """Return the map's share on an object over the object's share of the picture."""
    area = shares.mean().item()
    return (values * shares).sum().item() / area if area else 0.0


def _naming(name: str, captions: Sequence[Caption]) -> list[Word]:
    """Return, from each caption that names the class, the first word that does."""
    found = []
    for caption in captions:
        place = named_at(name, caption.text)
        if place is not None:
            found += [word for word in caption.words if word.start <= place < word.end]
    return found
