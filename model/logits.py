"""Changes to next-token scores: penalties, suppressed tokens, sampling filters; as transformers' generate defines them.

Knows rows of scores and the ids before them, not beams, words or images.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.options import GenerationOptions

BANNED = float("-inf")


def penalize_repetition(scores: Tensor, ids: Sequence[int], penalty: float) -> Tensor:
    """Return scores (V,) with every id in `ids` made less likely: positive scores divided, negative ones multiplied.

    Keskar et al. 2019, section 4.1.
    """
    used = torch.tensor(sorted(set(ids)), device=scores.device)
    current = scores[used]
    return scores.index_put((used,), torch.where(current < 0, current * penalty, current / penalty))


def repeated_ngram_ids(ids: Sequence[int], size: int) -> set[int]:
    """Return the ids that would complete an n-gram of `size` tokens that `ids` already contains."""
    if len(ids) + 1 < size:
        return set()
    tail = tuple(ids[len(ids) - size + 1 :])
    return {ids[at + size - 1] for at in range(len(ids) - size + 1) if tuple(ids[at : at + size - 1]) == tail}


def sampling_probs(scores: Tensor, options: GenerationOptions) -> Tensor:
    """Return the probabilities (V,) that a token is sampled with: temperature, then top-k, top-p, min-p.

    Min-p: Nguyen et al. 2024, section 3. Top-p, or nucleus sampling: Holtzman et al. 2020, section 3.1.
    """
    scores = scores / options.temperature
    if 0 < options.top_k < scores.numel():
        scores = scores.masked_fill(scores < scores.topk(options.top_k).values[-1], BANNED)
    if options.top_p < 1.0:
        ascending, order = scores.sort()
        removed = ascending.softmax(0).cumsum(0) <= 1 - options.top_p
        removed[-1] = False  # the most likely token stays for every top_p
        scores = scores.masked_fill(removed.scatter(0, order, removed), BANNED)
    if options.min_p > 0.0:
        probs = scores.softmax(0)
        scores = scores.masked_fill(probs < options.min_p * probs.max(), BANNED)
    return scores.softmax(0)
