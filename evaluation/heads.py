"""Which attention heads point: chosen on objects whose place is known, before any figure is published from them.

Heads are added one by one, each time the one that lets the mean of the chosen heads point best, until none helps
(few heads of a decoder localise; Kang et al. 2025, "Your large vision-language model only needs a few attention heads").

Shapes: D heads of all layers, N words, P cells.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from corpus import OWN_DATA, Example, Scene, captions_of
from evaluation.generate import png_bytes
from evaluation.maps import class_masks
from evaluation.synonyms import named_at
from model import Checkpoint, MapConfig, merge_heads, prepare, read_picture

SELECTION_SERIES = 4  # scenes that are neither trained, validated nor tested on


@dataclass(frozen=True, slots=True)
class HeadRows:
    """rows (D, N, P): every head's attention for every word; touched (N, P) bool: the cells that its object touches.

    weights (N,): every object of a picture counts once, however many words name it.
    """

    rows: Tensor
    touched: Tensor
    weights: Tensor
    heads: int  # a layer

    def pointing(self, chosen: Sequence[int], config: MapConfig) -> float:
        """Return the share of objects that the peak of the chosen heads' mean touches."""
        peaks = merge_heads(self.rows[list(chosen)], config).argmax(-1)  # (N,)
        hits = self.touched[torch.arange(len(peaks)), peaks].float()
        return ((hits * self.weights).sum() / self.weights.sum()).item()


@dataclass(frozen=True, slots=True)
class NamedObjects:
    """A picture, its captions, and which of their words (caption number, place in the text) name which pixels."""

    picture: bytes
    captions: tuple[str, ...]
    words: tuple[tuple[int, int, Tensor], ...]  # the mask is (height, width) bool


def objects_of_scenes(scenes: Sequence[Scene]) -> list[NamedObjects]:
    """Return the shapes' names of the exact captions of scenes, with their masks."""
    found = []
    for scene in scenes:
        caption = captions_of(scene, random.Random(0))[0]
        words = tuple((0, word.start, torch.from_numpy(scene.objects[word.object].mask)) for word in caption.words)
        found.append(NamedObjects(png_bytes(scene.paint()), (caption.text,), words))
    return found


def objects_of_photographs(examples: Sequence[Example]) -> list[NamedObjects]:
    """Return the words of human captions that name a boxed class, with the class's boxes."""
    found = []
    for example in examples:
        masks = class_masks(example, read_picture(example.read(), OWN_DATA).upright_size)
        words = tuple(
            (number, place, mask)
            for number, text in enumerate(example.references)
            for name, mask in masks.items()
            if (place := named_at(name, text)) is not None
        )
        if words:
            found.append(NamedObjects(example.read(), example.references, words))
    return found


@torch.inference_mode()
def read_heads(checkpoint: Checkpoint, named: Sequence[NamedObjects]) -> HeadRows:
    """Read every head's attention row for every word that names an object."""
    network, tokenizer, config = checkpoint.network, checkpoint.tokenizer, checkpoint.config
    start, pad = config.decoder.start_id, config.decoder.pad_id
    rows, touched, weights = [], [], []
    for entry in tqdm(named, desc="heads", leave=False):
        features = network.encode(prepare(entry.picture, config.image, OWN_DATA).pixels[None])
        ids = [tokenizer.encode(text) for text in entry.captions]
        longest = max(map(len, ids))
        tokens = torch.tensor([[start, *row, *[pad] * (longest - len(row))] for row in ids])
        _, seen, _ = network.decode(tokens, network.start(features, (0,) * len(ids)), weights=True)
        cells = torch.cat(seen, dim=1)[..., features.prefix : features.prefix + features.grid.cells]  # (R, D, T, P)
        size = (features.grid.rows, features.grid.columns)
        named_by = Counter(id(mask) for _, _, mask in entry.words)
        for number, place, mask in entry.words:
            spans = [span for span in tokenizer.words(ids[number]) if span.start <= place < span.end]
            if spans:
                rows.append(cells[number, :, list(spans[0].tokens)].mean(1))
                shares = torch.nn.functional.adaptive_avg_pool2d(mask[None, None].float(), size).flatten()
                touched.append(shares > 0)
                weights.append(1 / named_by[id(mask)])
    return HeadRows(torch.stack(rows, dim=1), torch.stack(touched), torch.tensor(weights), config.decoder.heads)


def choose_heads(reads: Sequence[HeadRows], config: MapConfig, most: int = 8) -> tuple[list[tuple[int, int]], list[float]]:
    """Return the chosen (layer, head) pairs, and how well their mean, as `config` makes it, points on each of the sets."""

    def score(heads: Sequence[int]) -> float:
        return sum(read.pointing(heads, config) for read in reads) / len(reads)

    chosen: list[int] = []
    best = 0.0
    while len(chosen) < most:
        rest = [head for head in range(len(reads[0].rows)) if head not in chosen]
        scored, head = max((score([*chosen, head]), -head) for head in rest)
        if scored <= best + 1e-4:
            break
        best = scored
        chosen.append(-head)
    return sorted(divmod(head, reads[0].heads) for head in chosen), [read.pointing(chosen, config) for read in reads]
