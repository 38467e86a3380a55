"""The moving average of a network's weights: what is validated, saved and served."""

from __future__ import annotations

import copy

import torch

from model import CaptionNetwork


class WeightAverage:
    """An exponential moving average (Polyak and Juditsky 1992) of the trained weights of a network."""

    def __init__(self, network: CaptionNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: CaptionNetwork, step: int) -> None:
        """Move the average towards the network; early steps move it further, so that it forgets the random start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, now in zip(self.network.buffers(), network.buffers(), strict=True):
            mean.copy_(now)  # the statistics of a trained stem's batch norms are averages already
        pairs = [
            (mean, now) for mean, now in zip(self.network.parameters(), network.parameters(), strict=True) if now.requires_grad
        ]
        torch._foreach_lerp_([mean for mean, _ in pairs], [now.detach() for _, now in pairs], 1 - decay)
