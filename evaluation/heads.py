"""Which attention heads point: chosen on objects whose place is known, before any figure is published from them.

Heads are added one by one, each time the one that lets the mean of the chosen heads point best, until none helps
(few heads of a decoder localise; Kang et al. 2025, "Your large vision-language model only needs a few attention heads").

Shapes: N words, D heads of all layers, P cells.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corpus import Scene, captions_of
from evaluation.generate import png_bytes
from model import Checkpoint, prepare

SELECTION_SERIES = 4  # scenes that are neither trained, validated nor tested on
_BATCH = 32


@dataclass(frozen=True, slots=True)
class HeadRows:
    """rows (N, D, P): every head's attention for every object word; shares (N, P): the cells' share of the object."""

    rows: Tensor
    shares: Tensor
    heads: int  # a layer

    def pointing(self, chosen: Sequence[int]) -> float:
        """Return how much of the object lies, on average, in the cell where the mean of the chosen heads peaks.

        Near its border an object covers part of a cell: a share, and not yes or no, makes a smoother choice.
        """
        peaks = self.rows[:, list(chosen)].mean(1).argmax(-1)  # (N,)
        return self.shares[torch.arange(len(peaks)), peaks].mean().item()


@torch.inference_mode()
def scene_head_rows(checkpoint: Checkpoint, scenes: Sequence[Scene]) -> HeadRows:
    """Read every head's row for every shape's name in the exact captions of scenes."""
    network, tokenizer, config = checkpoint.network, checkpoint.tokenizer, checkpoint.config
    rows, shares = [], []
    for first in range(0, len(scenes), _BATCH):
        part = scenes[first : first + _BATCH]
        views = [prepare(png_bytes(scene.paint()), config.image) for scene in part]
        features = network.encode(torch.stack([view.pixels for view in views]))
        captions = [captions_of(scene, random.Random(0))[0] for scene in part]
        ids = [[config.decoder.start_id, *tokenizer.encode(caption.text)] for caption in captions]
        longest = max(map(len, ids))
        tokens = torch.tensor([row + [config.decoder.pad_id] * (longest - len(row)) for row in ids])
        _, weights, _ = network.decode(tokens, network.start(features), weights=True)
        cells = torch.cat(weights, dim=1)[..., features.prefix : features.prefix + features.grid.cells]  # (B, D, T, P)
        for index, (scene, caption) in enumerate(zip(part, captions, strict=True)):
            spans = {span.start: span for span in tokenizer.words(ids[index][1:])}
            for named in caption.words:
                mask = torch.from_numpy(scene.objects[named.object].mask)[None, None].float()
                size = (features.grid.rows, features.grid.columns)
                rows.append(cells[index, :, list(spans[named.start].tokens)].mean(1))
                shares.append(torch.nn.functional.adaptive_avg_pool2d(mask, size).flatten())
    return HeadRows(torch.stack(rows), torch.stack(shares), config.decoder.heads)


def choose_heads(read: HeadRows, most: int = 6) -> tuple[list[tuple[int, int]], float]:
    """Return the chosen (layer, head) pairs and how well their mean points."""
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < most:
        rest = [head for head in range(read.rows.size(1)) if head not in chosen]
        scored = max((read.pointing([*chosen, head]), -head) for head in rest)
        if scored[0] <= best + 1e-4:
            break
        best = scored[0]
        chosen.append(-scored[1])
    return sorted(divmod(head, read.heads) for head in chosen), best
