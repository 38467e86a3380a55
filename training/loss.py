"""The loss of a step: cross-entropy of the targets, and of attention outside of a word's region.

Shapes: B images, R captions (rows), T tokens, V vocabulary, N targets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model import CaptionNetwork, ImageFeatures
from training.data import Batch
from training.regions import region_loss


def predict(
    network: CaptionNetwork, features: ImageFeatures, batch: Batch, unconditional_ratio: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (N, V), targets (N,) and the region loss of a batch; "no image" replaces a share of the images."""
    inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]  # (R, T)
    dropped = torch.rand(features.num_images, device=inputs.device) < unconditional_ratio  # (B,)
    state = network.start(network.drop_images(features, dropped), batch.image_of)
    regions = None if batch.regions is None else batch.regions.without(dropped, batch.image_of)
    logits, weights, _ = network.decode(inputs, state, weights=regions is not None, logits_mask=batch.is_target)  # (N, V)
    loss = region_loss(weights, regions, network.config.maps, features.num_prefix_tokens) if regions else logits.new_zeros(())
    return logits, targets[batch.is_target], loss


def caption_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy in nats: logits (N, V), targets (N,) without padding.

    Label smoothing: Szegedy et al. 2016, section 7.
    """
    return functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
