"""Whether maps point at what their words name: on drawn scenes by exact masks, on photographs by boxes.

Pointing: the centre of the cell with the largest value lies in the object. Beside it stand what a map that knows
nothing would reach: the centre of the picture, the object's share of the area, and another object's place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from corpus import Example, NamedBox, Scene, captions_of
from evaluation.generate import explain_pictures, png_bytes
from evaluation.synonyms import words_of
from model import Box, Captioner, ImageCaptions, Word


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

    def as_json(self) -> dict[str, float | int | None]:
        return {name: getattr(self, name) for name in self.__slots__}


def scene_pointing(captioner: Captioner, scenes: Sequence[Scene]) -> Pointing:
    """Explain the exact caption of each scene and judge the map of every shape's name by the shape's mask."""
    import random

    captions = [captions_of(scene, random.Random(0))[0] for scene in scenes]
    pictures = [png_bytes(scene.paint()) for scene in scenes]
    answers = explain_pictures(captioner, pictures, [caption.text for caption in captions])
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


def photograph_pointing(
    captioner: Captioner, examples: Sequence[Example], *, cases: list[dict[str, object]] | None = None
) -> Pointing:
    """Explain human captions of photographs with boxes and judge the maps of the words that name a boxed class.

    A case is a photograph and a class that one of its captions names (the class's name, its last word, its plural, or a
    common synonym: synonyms.py); its figure is the mean over the captions that name it, each by its first such word.
    A peak counts where it lies in any box of the class.
    """
    plan = [(example, text) for example in examples if example.objects for text in example.references]
    answers = explain_pictures(captioner, [example.read() for example, _ in plan], [text for _, text in plan])
    by_image: dict[str, list[ImageCaptions]] = {}
    for (example, _), answer in zip(plan, answers, strict=True):
        by_image.setdefault(example.image_id, []).append(answer)
    hits, centres, areas, others, swaps = [], [], [], [], []
    for example in examples:
        if example.image_id not in by_image:
            continue
        size = _size(example)
        whole = Box(0, 0, *size)
        classes: dict[str, list[NamedBox]] = {}
        for entry in example.objects:
            classes.setdefault(entry.name, []).append(entry)
        masks = {name: _mask([entry.box for entry in boxes], size) for name, boxes in classes.items()}
        named: dict[str, list[Tensor]] = {}
        for name in classes:
            for answer in by_image[example.image_id]:
                word = _first_named(name, answer)
                if word is not None:
                    named.setdefault(name, []).append(_values(word))
        answer = by_image[example.image_id][0]
        for name, maps in named.items():
            peaks = [_peak(values, answer, whole) for values in maps]
            hit = mean(bool(masks[name][int(y), int(x)]) for x, y in peaks)
            hits.append(hit)
            centres.append(bool(masks[name][size[1] // 2, size[0] // 2]))
            areas.append(masks[name].float().mean().item())
            if cases is not None:
                cases.append({"image": example.image_id, "class": name, "pointing": hit})
            own = _cell_shares(masks[name], answer)
            for other in named:
                if other == name:
                    continue
                others.append(mean(bool(masks[other][int(y), int(x)]) for x, y in peaks))
                rest = _cell_shares(masks[other], answer)
                swaps.append(mean(_density(values, own) > _density(values, rest) for values in maps))
    return _summary(hits, centres, areas, others, swaps)


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


def _peak(values: Tensor, answer: ImageCaptions, covers: Box) -> tuple[float, float]:
    """Return the centre, in pixels, of the cell with the largest value."""
    cell = covers.cell(answer.grid, int(values.argmax()))
    return (cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2


def _cell_shares(mask: Tensor, answer: ImageCaptions) -> Tensor:
    """Return the share of every cell that a mask (height, width) covers: (cells,)."""
    size = (answer.grid.rows, answer.grid.columns)
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None].double(), size).flatten()


def _density(values: Tensor, shares: Tensor) -> float:
    """Return the map's share on an object over the object's share of the picture."""
    area = shares.mean().item()
    return (values * shares).sum().item() / area if area else 0.0


def _mask(boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size[1], size[0], dtype=torch.bool)
    for box in boxes:
        mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    return mask


def _size(example: Example) -> tuple[int, int]:
    from model import read_picture

    return read_picture(example.read()).upright_size


def _first_named(name: str, answer: ImageCaptions) -> Word | None:
    """Return the first word of the caption that names the class; of a name of two words, its last."""
    caption = answer.captions[0]
    text = caption.text.lower()
    for phrase in words_of(name):
        found = re.search(rf"\b{re.escape(phrase)}\b", text)
        if found is not None:
            return next((word for word in caption.words if word.start < found.end() <= word.end), None)
    return None
