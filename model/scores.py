"""Changes to next-token scores: penalties, bans, and the filters of sampling; as transformers' generate defines them.

Knows rows of scores and the ids before them. Does not know beams, words or images.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NEVER = float("-inf")


def penalise_repetition(scores: Tensor, ids: Sequence[int], penalty: float) -> Tensor:
    """Return scores (V,) with every id in `ids` made less likely: positive ones divided, negative ones multiplied.

    Keskar et al. 2019, section 4.1.
    """
    seen = torch.tensor(sorted(set(ids)), device=scores.device)
    found = scores[seen]
    return scores.index_put((seen,), torch.where(found < 0, found * penalty, found / penalty))


def repeated_ngram_ids(ids: Sequence[int], size: int) -> set[int]:
    """Return the ids that would complete an n-gram of `size` tokens that `ids` already holds."""
    if len(ids) + 1 < size:
        return set()
    tail = tuple(ids[len(ids) - size + 1 :])
    return {ids[at + size - 1] for at in range(len(ids) - size + 1) if tuple(ids[at : at + size - 1]) == tail}


def sampling_distribution(scores: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Return the probabilities (V,) to draw from: temperature, then top-k, then top-p.

    Top-p, or nucleus sampling: Holtzman et al. 2020, section 3.1.
    """
    scores = scores / temperature
    if 0 < top_k < scores.numel():
        scores = scores.masked_fill(scores < scores.topk(top_k).values[-1], NEVER)
    if top_p < 1.0:
        ascending, order = scores.sort()
        removed = ascending.softmax(0).cumsum(0) <= 1 - top_p
        removed[-1] = False  # the most likely token stays whatever top_p says
        scores = scores.masked_fill(removed.scatter(0, order, removed), NEVER)
    return scores.softmax(0)
