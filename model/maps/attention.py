"""Map method `attention`: the mean cross-attention of the checkpoint's selected heads at the predicting position.

Shapes: R captions, T tokens, P patches, N heads, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import MapConfig
from model.maps.methods import ScoredRows

_MIN_WEIGHT = 1e-4  # attention below it counts as this in a geometric mean: 1/50 of a uniform share of 14 x 14 patches


class AttentionMaps:
    """Forward only: one pass gives the maps of all tokens."""

    name = "attention"
    help = "mean cross-attention of the checkpoint's selected heads"
    uses_gradients = False
    is_attention_share = True

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """Prefix tokens and the null key are left out, so a row sums to the share of attention on the image."""
        if scored.config.heads:
            heads = torch.stack([scored.weights[layer][:, head] for layer, head in scored.config.heads])  # (N, R, T, S)
        else:
            heads = torch.cat([layer.transpose(0, 1) for layer in scored.weights])  # (L*H, R, T, S)
        return merge_heads(heads[..., scored.patches], scored.config)  # (R, T, P)


def prompt_shares(scored: ScoredRows) -> Tensor:
    """Return the share of attention on the prompt's tokens, of the heads that the map is computed from: (R, T)."""
    chosen = scored.config.heads or [(layer, head) for layer, w in enumerate(scored.weights) for head in range(w.size(1))]
    parts = [scored.weights[layer][:, head, :, scored.prompt].sum(-1) for layer, head in chosen]
    return torch.stack(parts).mean(dim=0)


def merge_heads(rows: Tensor, config: MapConfig) -> Tensor:
    """Return the mean of N heads' attention on the patches: (N, …, P) -> (…, P).

    With either mean, a row keeps the sum of the arithmetic one: the share of attention on the image.
    """
    mean = rows.mean(dim=0)
    if config.head_mean == "arithmetic":
        return mean
    geometric = rows.clamp_min(_MIN_WEIGHT).log().mean(dim=0).exp()
    return geometric * (mean.sum(-1, keepdim=True) / geometric.sum(-1, keepdim=True))
