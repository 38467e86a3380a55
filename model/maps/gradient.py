"""Map method `gradient`: how much each patch's cross-attention values contribute to the log-probability of a token.

The contribution of patch s to token t is the sum over layers, heads and channels of gradient x value; the gradient is that
of log p(token t) with respect to the value v_s (gradient x input: Shrikumar et al. 2016, section 2). It equals the sum over
positions of attention x gradient of the attention (the product that Chefer et al. 2021, section 3.1, aggregate), and to first
order it is how much log p(token t) falls if the patch's values are removed. Negative contributions are set to 0.

Shapes: R captions, T tokens, P patches, S image keys (null key included), H heads, K head size, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.maps.methods import ScoredRows

_SCALE = 2.0**10  # small gradients would become 0 in float16; a power of two is exact


class GradientMaps:
    """One backward pass per token: slower than `attention` by about the length of the caption."""

    name = "gradient"
    help = "gradient x value of cross-attention: what raised the word's probability; slower"
    uses_gradients = True
    is_attention_share = False

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod."""
        return contributions(scored).clamp(min=0)


def contributions(scored: ScoredRows) -> Tensor:
    """Return the signed contribution of each patch to each token's log-probability, (R, T, P)."""
    num_rows, num_tokens = scored.targets.shape
    if num_tokens == 0:
        return scored.logits.new_zeros(num_rows, 0, scored.grid.num_patches)
    log_probs = scored.logits.float() if scored.logits.dtype != torch.float64 else scored.logits
    log_probs = log_probs.log_softmax(-1).gather(2, scored.targets[..., None]).squeeze(2)  # (R, T)
    values = scored.state.cross_value  # L x (R, H, S, K)
    maps = []
    for token in range(num_tokens):
        scored.report_progress()
        # Rows are independent: the gradient of their sum is that of each.
        gradients = torch.autograd.grad(_SCALE * log_probs[:, token].sum(), values, retain_graph=token + 1 < num_tokens)
        parts = [
            (gradient.to(log_probs.dtype) * value).sum(dim=(1, 3)) for gradient, value in zip(gradients, values, strict=True)
        ]  # L x (R, S)
        maps.append(torch.stack(parts).sum(dim=0)[:, scored.patches] / _SCALE)  # (R, P)
    return torch.stack(maps, dim=1).detach()
