"""The losses of a step: cross-entropy of the targets, words that an image's captions have, and a teacher's probabilities.

Shapes: B images, R captions (rows), T tokens, S image tokens, C hidden size, V vocabulary, N targets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model import CaptionNetwork, ImageFeatures
from training.data import Batch
from training.regions import region_loss


def predict(network: CaptionNetwork, features: ImageFeatures, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (N, V), targets (N,) and the region loss of a batch; "no image" replaces the images that it drops."""
    inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]  # (R, T)
    features = features if batch.is_dropped is None else network.drop_images(features, batch.is_dropped)
    state, regions = network.start(features, batch.image_of), batch.regions
    logits, weights, _ = network.decode(inputs, state, weights=regions is not None, logits_mask=batch.is_target)  # (N, V)
    loss = region_loss(weights, regions, network.config.maps, features.num_prefix_tokens) if regions else logits.new_zeros(())
    return logits, targets[batch.is_target], loss


def caption_losses(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy of each target in nats (N,): logits (N, V), targets (N,) without padding.

    Label smoothing: Szegedy et al. 2016, section 7.
    """
    return functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")


def without_worst(losses: Tensor, is_target: Tensor, ratio: float) -> Tensor:
    """Return the losses (N,) with those of the worst `ratio` of the captions (rows of is_target (R, T)) set to 0.

    The others are raised so that their sum is as that of all captions: the mean over all targets stays comparable. Captions that
    are still hard late in a training are mostly wrong ones (OFA, Wang et al. 2022, appendix A.1).
    """
    rows = is_target.nonzero()[:, 0]  # (N,)
    num_dropped = int(ratio * is_target.size(0))
    if not num_dropped or not len(rows):
        return losses
    counts = is_target.sum(1).clamp(min=1)  # (R,)
    means = torch.zeros(len(counts), device=losses.device).index_add(0, rows, losses.detach().float()) / counts
    is_kept = torch.ones_like(counts, dtype=torch.bool)
    is_kept[means.topk(num_dropped).indices] = False
    share = (counts * is_kept).sum() / counts.sum()
    return losses * is_kept[rows] / share


def distillation_losses(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || network) of each target (N,), in nats, of logits (N, V) each (Hinton et al. 2015, section 2)."""
    log_probabilities, expected = logits.float().log_softmax(-1), teacher.float().log_softmax(-1)
    return functional.kl_div(log_probabilities, expected, log_target=True, reduction="none").sum(-1)


class WordPresence(nn.Module):
    """Predicts from an image alone which tokens its captions have, so that the encoder learns what is in the image.

    As the word detectors of Fang et al. 2015, section 3, with the mean of the patches instead of a noisy or. It is not saved with
    a checkpoint.
    """

    def __init__(self, hidden_size: int, vocab_size: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(hidden_size), nn.Linear(hidden_size, vocab_size)
        self._num_prefix_tokens = num_prefix_tokens
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, -5.0)  # most tokens are in no caption of an image

    def forward(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Image tokens (B, S, C) -> the sum over images of the mean binary cross-entropy over the vocabulary times its size."""
        logits = self.head(self.norm(tokens[:, self._num_prefix_tokens :].mean(1))).float()  # (B, V)
        present = torch.zeros_like(logits)
        image_of = torch.tensor(batch.image_of, device=tokens.device)[:, None].expand_as(batch.is_target)
        present[image_of[batch.is_target], batch.tokens[:, 1:][batch.is_target]] = 1.0
        losses = functional.binary_cross_entropy_with_logits(logits, present, reduction="none").sum(-1)  # (B,)
        return losses.sum() * bool(batch.is_target.any())
