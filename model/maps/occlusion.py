"""Map method `occlusion`: how much log p(token) falls if 3 x 3 patches cannot be attended to. The referee of the others.

Zeiler and Fergus 2014, section 4.2, on keys instead of pixels: what the decoder reads, not what the encoder sees.

Shapes: R captions, T tokens, P patches, S image tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.errors import ConfigError
from model.maps.methods import ScoredRows

_REACH = 1  # patches on each side of the middle one


class OcclusionMaps:
    """One decoder pass per patch: some hundred times slower than `attention`."""

    name = "occlusion"
    help = "how much log p falls without 3 x 3 patches; a decoder pass per patch, very slow"
    uses_gradients = False
    is_attention_share = False

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """See MapMethod. Patches whose absence raises the token have 0."""
        return falls(scored).clamp_min(0)


def falls(scored: ScoredRows) -> Tensor:
    """Return the signed fall of each token's log-probability without the patches around each patch, (R, T, P)."""
    if scored.rescore is None:
        raise ConfigError("maps is 'occlusion', which needs a runtime that can decode again")
    rows, columns = scored.grid.rows, scored.grid.columns
    whole = scored.rescore(scored.state)  # (R, T)
    num_keys = scored.state.cross_key[0].size(2)
    maps = []
    for middle in range(scored.grid.num_patches):
        row, column = divmod(middle, columns)
        kept = torch.ones(num_keys, dtype=torch.bool)
        for r in range(max(0, row - _REACH), min(rows, row + _REACH + 1)):
            first = scored.num_prefix_tokens + r * columns
            kept[first + max(0, column - _REACH) : first + min(columns, column + _REACH + 1)] = False
        numbers = kept.nonzero()[:, 0].to(whole.device)
        state = replace(
            scored.state,
            cross_key=tuple(key[:, :, numbers] for key in scored.state.cross_key),
            cross_value=tuple(value[:, :, numbers] for value in scored.state.cross_value),
            num_keys=tuple(number - (num_keys - len(numbers)) for number in scored.state.num_keys),
        )
        maps.append(whole - scored.rescore(state))
        scored.report_progress()
    return torch.stack(maps, dim=-1)
