"""Forward-only map methods beside `attention`: all heads, value norms, and maps compared with those of earlier words.

They cost as much as `attention`. docs/maps.md has what each is worth.

Shapes: R captions, T tokens, P patches, H heads, S image tokens, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.maps.attention import AttentionMaps
from model.maps.methods import ScoredRows


class MeanMaps:
    """The usual baseline: all layers and heads alike."""

    name = "mean"
    help = "mean cross-attention of all layers and heads"
    uses_gradients = False
    is_attention_share = True

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod."""
        return torch.stack([layer.mean(dim=1) for layer in scored.weights]).mean(dim=0)[..., scored.patches]


class NormMaps:
    """Attention x the norm of what is attended to (Kobayashi et al. 2020, section 3), of values before the output projection."""

    name = "norm"
    help = "cross-attention of all heads x the norm of their values"
    uses_gradients = False
    is_attention_share = False

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod."""
        image_of = torch.tensor(scored.state.image_of, device=scored.logits.device)
        maps = [
            (layer * value.norm(dim=-1).to(layer.dtype)[image_of][:, :, None]).sum(dim=1)  # (R, H, T, S) -> (R, T, S)
            for layer, value in zip(scored.weights, scored.state.cross_value, strict=True)
        ]
        return torch.stack(maps).mean(dim=0)[..., scored.patches]


class StandardizedMaps:
    """How far a map is above what the caption's earlier words look at, in standard deviations of them."""

    name = "standardized"
    help = "`attention` minus the mean of the words so far, over their standard deviation"
    uses_gradients = False
    is_attention_share = False

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod. The first token has nothing before it: it is compared with a uniform map."""
        maps = AttentionMaps().token_maps(scored)
        maps = maps / maps.sum(dim=-1, keepdim=True).clamp_min(1e-9)
        uniform = torch.full_like(maps[:, :1], 1 / maps.size(-1))
        known = torch.cat([uniform, maps], dim=1)  # a uniform map stands before the first token
        count = torch.arange(1, known.size(1) + 1, device=maps.device, dtype=maps.dtype)[None, :, None]
        mean = known.cumsum(dim=1) / count
        variance = (known.square().cumsum(dim=1) / count - mean.square()).clamp_min(0)
        deviation = variance[:, 1:].sqrt() + 0.5 / maps.size(-1)
        return ((maps - mean[:, 1:]) / deviation).clamp_min(0)


class ResidualMaps:
    """What a map has beyond the earlier words' (Li et al. 2025, "Token activation map", section 3.2, with their mean)."""

    name = "residual"
    help = "`attention` minus its projection on the mean of the earlier words"
    uses_gradients = False
    is_attention_share = False

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod. The first token's map is that of `attention`."""
        maps = AttentionMaps().token_maps(scored)
        count = torch.arange(1, maps.size(1) + 1, device=maps.device, dtype=maps.dtype)[None, :, None]
        before = (maps.cumsum(dim=1) / count)[:, :-1]  # mean of the tokens up to the one before
        share = (maps[:, 1:] * before).sum(-1, keepdim=True) / before.square().sum(-1, keepdim=True).clamp_min(1e-12)
        return torch.cat([maps[:, :1], (maps[:, 1:] - share * before).clamp_min(0)], dim=1)
