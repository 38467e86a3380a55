"""The training loss: cross-entropy of the next token over real targets, with label smoothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def caption_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy in nats over N real targets (no padding among them).

    logits (N, V), targets (N,). Label smoothing: Szegedy et al. 2016, section 7.
    """
    return functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
