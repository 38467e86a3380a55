"""Where the map of a word should be: words that name a detected class have the boxes of the class, shapes of scenes their mask.

An attribute before a noun ("a large red bus") shares the noun's region. In training the attention of the served heads is
rewarded for its share inside the region.

Shapes: R captions, T tokens, H heads, S image keys, P patches, N words with a region.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from corpus import COLORS, CaptionedImage, DataError, draw_scene
from evaluation import Synonyms, coco_synonyms
from model import CaptionTokenizer, MapConfig, PatchGrid

_MORE_ATTRIBUTES = (
    "grey silver gold golden beige tan small large big little tiny huge tall short long young old older striped wooden colorful "
    "dark light blond blonde shaggy fluffy"
)
_ATTRIBUTES = frozenset(COLORS) | frozenset(_MORE_ATTRIBUTES.split())
_CATEGORIES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, , stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , , "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, , dining table, , , toilet, , tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, , book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
COCO_CATEGORIES = tuple(name.strip() for name in _CATEGORIES.split(","))  # by category id - 1; "" is an id that no class has
_BEFORE = re.compile(r"(\w+)\W+$")
_MIN_SCORE = 0.35  # a weaker detection gives no region
_MIN_MASS = 1e-4
_MIN_ATTENTION = 1e-6  # of a patch
_COVERAGE = 0.2  # of the loss of attention outside the region


@dataclass(frozen=True, slots=True)
class DetectedBox:
    """A detected object: its class and its box as fractions of the image."""

    name: str
    x0: float
    y0: float
    x1: float
    y1: float
    score: float


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """The N tokens of a batch that have a region: caption, position that predicts the token, and the patches (N, P) bool."""

    rows: Tensor
    positions: Tensor
    patches: Tensor

    def mapped(self, change: Callable[[Tensor], Tensor]) -> RegionBatch:
        """Return the batch with every tensor changed, such as moved to a device."""
        return RegionBatch(change(self.rows), change(self.positions), change(self.patches))

    def select(self, kept: Tensor) -> RegionBatch:
        """Return the tokens that are kept (N,) bool."""
        return self.mapped(lambda value: value[kept])


def read_detections(path: Path, classes: Sequence[str] = COCO_CATEGORIES) -> dict[str, list[DetectedBox]]:
    """Read one JSON line per image: {"image", "boxes": [[x0, y0, x1, y1, category id, score], …]}, fractions of the image.

    `classes` are the names by category id - 1; "" for ids that no class has. Raises DataError.
    """
    boxes: dict[str, list[DetectedBox]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                boxes[record["image"]] = [
                    DetectedBox(classes[int(number) - 1], x0, y0, x1, y1, score)
                    for x0, y0, x1, y1, number, score in record["boxes"]
                ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} has no detections that can be read ({error}); see training/regions.py for the format") from error
    return boxes


def read_all_detections(files: Sequence[str]) -> dict[str, list[DetectedBox]]:
    """Return the detections of several files by image id. Raises DataError."""
    return {image: boxes for name in files for image, boxes in read_detections(Path(name)).items()}


class RegionFinder:
    """Regions of the words of captions, as patches of a grid."""

    def __init__(self, grid: PatchGrid, tokenizer: CaptionTokenizer, detections: dict[str, list[DetectedBox]]) -> None:
        self.grid, self._tokenizer, self._detections = grid, tokenizer, detections
        self._synonyms: Synonyms = coco_synonyms()

    def regions(self, entry: CaptionedImage) -> list[list[tuple[int, Tensor]]]:
        """Return for each caption of an image the (index of a token, patches (P,) bool) of every token that has a region."""
        if entry.scene is not None:
            spans = _scene_spans(entry, self.grid)
        else:
            spans = [self._named(entry, text) for text in entry.captions]
        return [self._tokens(text, regions) for text, regions in zip(entry.captions, spans, strict=True)]

    def _named(self, entry: CaptionedImage, text: str) -> list[tuple[int, int, Tensor]]:
        boxes = self._detections.get(entry.image_id, [])
        regions = []
        for start, end, name in self._synonyms.spans(text) if boxes else ():
            own = [box for box in boxes if box.name == name and box.score >= _MIN_SCORE]
            if own:
                regions.append((attributes_start(text, start), end, _box_patches(own, self.grid)))
        return regions

    def _tokens(self, text: str, spans: Sequence[tuple[int, int, Tensor]]) -> list[tuple[int, Tensor]]:
        if not spans:
            return []
        words = self._tokenizer.words(self._tokenizer.encode(text))
        return [
            (token, patches)
            for start, end, patches in spans
            for word in words
            if start <= word.start < end
            for token in word.tokens
        ]


def attributes_start(text: str, start: int) -> int:
    """Return where the attributes before the word at `start` begin; `start` if there are none."""
    while (match := _BEFORE.search(text[:start])) and match[1].lower() in _ATTRIBUTES:
        start = match.start()
    return start


def collate_regions(rows: Sequence[Sequence[tuple[int, Tensor]]], first: int, num_patches: int) -> RegionBatch:
    """Return the regions of R captions; `first` is the position that predicts a caption's first token."""
    flat = [(row, first + token, patches) for row, regions in enumerate(rows) for token, patches in regions]
    return RegionBatch(
        torch.tensor([row for row, _, _ in flat], dtype=torch.long),
        torch.tensor([position for _, position, _ in flat], dtype=torch.long),
        torch.stack([patches for *_, patches in flat]) if flat else torch.zeros(0, num_patches, dtype=torch.bool),
    )


def region_loss(weights: Sequence[Tensor], regions: RegionBatch, maps: MapConfig, prefix: int) -> Tensor:
    """Return the sum over tokens, the mean over the heads of the maps, of -log(attention inside the region), plus a share of the
    divergence KL(uniform over the region || attention inside it): attention on one patch of an object would be inside, and
    show a dot.

    weights: L x (R, H, T, S) cross-attention; all heads of the last layer if no heads are selected.
    """
    heads = maps.heads or tuple((len(weights) - 1, head) for head in range(weights[0].size(1)))
    if not len(regions.rows):
        return weights[0].new_zeros(())
    losses = []
    for layer, head in heads:
        attention = weights[layer][regions.rows, head, regions.positions]  # (N, S)
        patches = attention[:, prefix : prefix + regions.patches.size(1)].float()  # (N, P)
        inside = (patches * regions.patches).sum(-1).clamp(min=_MIN_MASS).log()
        area = regions.patches.sum(-1)
        logs = (patches.clamp(min=_MIN_ATTENTION).log() * regions.patches).sum(-1) / area
        losses.append((_COVERAGE * (inside - area.log() - logs) - inside).sum())
    return torch.stack(losses).mean()


def _box_patches(boxes: Sequence[DetectedBox], grid: PatchGrid) -> Tensor:
    """Return the patches (P,) whose half lies in one of the boxes; the patches that are covered most if there is none."""
    covered = torch.zeros(grid.rows, grid.columns)
    for box in boxes:
        rows, columns = _overlap(box.y0, box.y1, grid.rows), _overlap(box.x0, box.x1, grid.columns)
        covered = torch.maximum(covered, rows[:, None] * columns)
    if covered.max() < 0.5:
        return (covered == covered.max()).flatten()
    return (covered >= 0.5).flatten()


def _overlap(low: float, high: float, count: int) -> Tensor:
    """Return the share of each of `count` equal intervals of 0..1 that low..high covers."""
    edges = torch.arange(count)
    return (torch.clamp(high * count - edges, 0, 1) - torch.clamp(low * count - edges, 0, 1)).clamp(min=0)


def _scene_spans(entry: CaptionedImage, grid: PatchGrid) -> list[list[tuple[int, int, Tensor]]]:
    """Return (start, end, patches) of the words of each caption of a scene: half of a patch, or its best one, is in the mask."""
    assert entry.scene is not None, "only scenes have masks"
    size, patches = (grid.rows, grid.columns), []
    for drawn in draw_scene(*entry.scene).objects:
        share = functional.adaptive_avg_pool2d(torch.from_numpy(drawn.mask)[None, None].float(), size).flatten()
        patches.append(share >= min(0.5, share.max().item()))
    return [
        [(attributes_start(text, word.start), word.end, patches[word.object]) for word in words]
        for text, words in zip(entry.captions, entry.scene_words, strict=True)
    ]
