"""What a training step minimizes, as one module whose forward is the whole forward pass: DDP and FSDP wrap it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model import CaptionNetwork, ImageFeatures
from training.config import TrainConfig
from training.data import Batch
from training.features import FrozenPart
from training.loading import LoadedStep
from training.loss import WordPresence, caption_losses, distillation_losses, predict, without_worst
from training.ranks import Ranks
from training.self_critical import SelfCritical
from training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all ranks and parts of a step, which its sums are divided by: parts of any size then make up the same mean."""

    targets: float
    region_tokens: float
    images: float

    @classmethod
    def of(cls, loaded: LoadedStep, ranks: Ranks) -> Totals:
        """Count the parts of a step on all ranks; the counts are at least 1, because they are divisors."""
        regions = [part.regions for part in loaded.parts if part.regions is not None]
        targets, words = ranks.sum(sum(part.num_targets for part in loaded.parts), sum(len(batch.rows) for batch in regions))
        return cls(max(targets, 1), max(words, 1), loaded.num_images)


class TrainingObjective(nn.Module):
    """The network, the heads that only training needs, and the sum of their losses."""

    def __init__(self, network: CaptionNetwork, config: TrainConfig, frozen: FrozenPart) -> None:
        super().__init__()
        self.network, self.frozen, self._config = network, frozen, config
        encoder = network.config.encoder
        self.word_presence = (
            WordPresence(encoder.hidden_size, network.config.decoder.vocab_size, encoder.num_prefix_tokens)
            if config.word_presence_weight
            else None
        )
        self.self_critical: SelfCritical | None = None
        self.teacher: Teacher | None = None

    def heads(self) -> dict[str, Tensor]:
        """Return the weights that only training needs, by name."""
        return {} if self.word_presence is None else dict(self.word_presence.state_dict())

    def load_heads(self, weights: dict[str, Tensor]) -> None:
        """Load what `heads` returned."""
        if self.word_presence is not None:
            self.word_presence.load_state_dict(weights)

    def train(self, mode: bool = True) -> TrainingObjective:
        """Set training mode; the frozen part stays in evaluation mode: batch norms keep their statistics."""
        super().train(mode)
        if (module := self.frozen.module(self.network.encoder)) is not None:
            module.eval()
        if self._config.lora_rank:  # its weights stay as they are, and so do its statistics
            for part in self.network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def forward(self, batch: Batch, totals: Totals, *, drops_worst: bool = False) -> Tensor:
        """Return the share of this batch in the loss of the step, in nats per token."""
        config, network = self._config, self.network
        features = self.frozen.features(network.encoder, batch.inputs) if batch.num_images else network.unconditional()
        logits, targets, region_sum = predict(network, features, batch)
        losses = caption_losses(logits, targets, config.label_smoothing)  # (N,)
        if self.teacher is not None and batch.teacher_inputs:
            expected = self.teacher.logits(batch)
            losses = losses + config.teacher_weight * (distillation_losses(logits, expected) - losses)
        if drops_worst:
            losses = without_worst(losses, batch.is_target, config.drop_worst_ratio)
        loss = losses.sum() / totals.targets
        if self.self_critical is not None and batch.num_images:
            loss = self.self_critical.mix(loss, network, features, batch, batch.num_images / totals.images)
        if batch.regions is not None:
            loss = loss + config.region_weight * region_sum / totals.region_tokens
        if self.word_presence is not None:
            loss = loss + config.word_presence_weight * self._word_presence_loss(features, batch, totals)
        return loss

    def _word_presence_loss(self, features: ImageFeatures, batch: Batch, totals: Totals) -> Tensor:
        assert self.word_presence is not None, "the run has such a loss"
        if not batch.num_images:  # captions without an image; the head's gradient is 0, not missing, on every rank
            return torch.stack([value.sum() for value in self.word_presence.parameters()]).sum() * 0.0
        loss: Tensor = self.word_presence(features.tokens, batch)
        return loss / totals.images
