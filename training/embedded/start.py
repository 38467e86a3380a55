"""The start of the embedded checkpoint's training: its predecessor, with a detector."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from model import CaptionNetwork, Checkpoint, ConfigError
from training.efficientdet import load_detector


def start_network(previous: Checkpoint, detector: Path) -> CaptionNetwork:
    """Return a network that captions as `previous` does, with a detector whose class map is not used yet.

    Raises ConfigError if the file of the detector is of another network, or if `previous` has a detector already.
    """
    old = previous.config
    if old.encoder.stem_detector:
        raise ConfigError("the previous checkpoint has a detector already; use the one before it (docs/checkpoints.md)")
    config = dataclasses.replace(
        old,
        encoder=dataclasses.replace(old.encoder, stem_detector="efficientdet_lite2", centered=True),
        maps=dataclasses.replace(old.maps, pointing=None),
    )
    network = CaptionNetwork(config)
    weights = network.state_dict()
    for name, value in previous.network.state_dict().items():
        weights[name] = value.clone() if weights[name].shape == value.shape else _grown(weights[name], value)
    network.load_state_dict(weights)
    part = network.encoder.vit.patch_embed.backbone.detector
    assert part is not None
    load_detector(part, detector)
    return network


def interpolated(before: CaptionNetwork, after: CaptionNetwork, share: float) -> CaptionNetwork:
    """Return a network with the weights (1 - share) * before + share * after.

    A training that continues a network forgets some of what it could do; between the two much of both is left (Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models", section 3).
    """
    network = CaptionNetwork(after.config)
    old = before.state_dict()
    network.load_state_dict(
        {
            name: old[name] + share * (value - old[name]) if value.is_floating_point() else value
            for name, value in after.state_dict().items()
        }
    )
    return network


def _grown(new: Tensor, old: Tensor) -> Tensor:
    """Return zeros of the new shape that begin with the old values."""
    grown = torch.zeros_like(new)
    grown[tuple(slice(0, size) for size in old.shape)] = old
    return grown
