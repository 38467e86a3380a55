"""AdamW over two kinds of weights and two rates."""

from __future__ import annotations

import torch

from model import CaptionNetwork
from training.config import TrainConfig


def build_optimiser(network: CaptionNetwork, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019): weight decay for matrices only, the encoder's rate with its own factor.

    Every group's "peak" is the rate that the schedule multiplies.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, value in network.named_parameters():
        if value.requires_grad:
            groups.setdefault((name.startswith("encoder."), value.dim() >= 2), []).append(value)
    settings = [
        {
            "params": values,
            "weight_decay": config.weight_decay if matrix else 0.0,
            "peak": config.rate * (config.encoder_rate if encoder else 1.0),
        }
        for (encoder, matrix), values in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=config.rate, betas=(0.9, 0.98))
