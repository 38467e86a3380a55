"""Self-critical training: captions that the network samples, each better or worse than the others of its image.

Rennie et al. 2017, "Self-critical sequence training"; the baseline of a sample is the mean reward of the image's other samples
(Luo 2020, "A better variant of self-critical sequence training", section 3).

Shapes: B images, K samples per image, R = B * K rows, T tokens, V vocabulary, N targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model import CaptionNetwork, CaptionTokenizer, ConfigError, ImageFeatures
from training.config import TrainConfig
from training.data import Batch, collate
from training.regions import DetectedBox
from training.reward import MIN_SCORE, CaptionReward
from training.sources import Source

MAX_TOKENS = 20  # of a sample
_SMALLEST_UNIT = 1e-6  # of a reward; all samples are equally good


class SelfCritical:
    """The loss of sampled captions."""

    def __init__(self, reward: CaptionReward, tokenizer: CaptionTokenizer, *, weight: float, num_samples: int) -> None:
        """`weight` is the share of the loss, `num_samples` the captions that are sampled per image."""
        self.reward, self._tokenizer, self._weight, self._num_samples = reward, tokenizer, weight, num_samples
        self.mean_reward: float | None = None  # of the samples of the last batch, None if it had none

    def mix(self, loss: Tensor, network: CaptionNetwork, features: ImageFeatures, batch: Batch, share: float = 1.0) -> Tensor:
        """Return the loss of a batch's captions and that of samples, by weight; the former alone where no reward is known.

        `share` is that of the batch's images in the step.
        """
        self.mean_reward = None
        if not (batch.image_keys and all(image in self.reward for image in batch.image_keys)):
            return loss
        return (1 - self._weight) * loss + self._weight * share * self.loss(network, features, batch)

    def loss(self, network: CaptionNetwork, features: ImageFeatures, batch: Batch) -> Tensor:
        """Return the mean over tokens of -advantage * log p."""
        special = tuple(batch.tokens[0, : batch.num_special].tolist())
        image_of = tuple(image for image in range(features.num_images) for _ in range(self._num_samples))
        samples = sample(network, features, image_of, special)
        end = network.config.decoder.eos_token_id
        texts = [self._tokenizer.decode([token for token in row if token != end]) for row in samples]
        rewards = self.reward([batch.image_keys[image] for image in image_of], texts, [row[-1] == end for row in samples])  # (R,)
        self.mean_reward = rewards.mean().item()
        per_row = advantages(rewards.view(-1, self._num_samples)).flatten().float().to(network.device)  # (R,)

        rows = [[*special, *row] for row in samples]
        tokens, is_target = collate(rows, len(special), network.config.decoder.pad_token_id)
        tokens, is_target = tokens.to(network.device), is_target.to(network.device)
        logits, _, _ = network.decode(tokens[:, :-1], network.start(features, image_of), logits_mask=is_target)  # (N, V)
        losses = functional.cross_entropy(logits.float(), tokens[:, 1:][is_target], reduction="none")
        return (losses * per_row[is_target.nonzero()[:, 0]]).mean()


def advantages(rewards: Tensor) -> Tensor:
    """Return each reward (B, K) less the mean of the other rewards of its image, in units of their root mean square.

    Without a unit the share of the samples in the loss depends on how good they are: rewards of bad captions are all small.
    """
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.size(1) - 1)
    differences = rewards - others
    unit = differences.square().mean().sqrt()
    return differences / unit if unit > _SMALLEST_UNIT else differences


@torch.no_grad()
def sample(
    network: CaptionNetwork, features: ImageFeatures, image_of: tuple[int, ...], special: tuple[int, ...]
) -> list[list[int]]:
    """Return the tokens that the network samples in each row after `special`, the end included if it comes in time."""
    was_training = network.decoder.training
    network.decoder.eval()  # samples are what the network would say: without dropout
    decoder = network.config.decoder
    state = network.start(features, image_of)
    tokens = torch.tensor([special] * len(image_of), device=network.device)
    rows: list[list[int]] = [[] for _ in image_of]
    unfinished = list(range(len(rows)))
    for _ in range(MAX_TOKENS):
        logits, _, state = network.decode(tokens, state)
        logits = logits[:, -1].float()
        logits[:, list(decoder.suppress_tokens)] = -torch.inf
        tokens = torch.multinomial(logits.softmax(dim=-1), 1)  # (R, 1)
        for number, token in zip(unfinished, tokens[:, 0].tolist(), strict=True):
            rows[number].append(token)
        left = [index for index, number in enumerate(unfinished) if rows[number][-1] != decoder.eos_token_id]
        if not left:
            break
        if len(left) < len(unfinished):
            state, tokens, unfinished = state.select(left), tokens[left], [unfinished[index] for index in left]
    network.decoder.train(was_training)
    return rows


def self_critical_of(
    config: TrainConfig,
    sources: Sequence[Source],
    detections: Mapping[str, Sequence[DetectedBox]],
    tokenizer: CaptionTokenizer,
) -> SelfCritical | None:
    """Return the self-critical part of a run's loss, None without one. The captions of the training images are the references.

    Raises ConfigError if there are none: captions of scenes are judged in another way.
    """
    if not config.self_critical_weight:
        return None
    entries = [entry for source in sources for entry in source.train if entry.scene is None]
    if not entries:
        raise ConfigError("self_critical_weight needs captioned photographs, the data has none; add --data, or set it to 0")
    references = {entry.key: entry.captions for entry in entries}
    classes = {
        entry.key: frozenset(box.name for box in detections[entry.image_id] if box.score >= MIN_SCORE)
        for entry in entries
        if entry.image_id in detections
    }
    reward = CaptionReward(references, classes)
    return SelfCritical(reward, tokenizer, weight=config.self_critical_weight, num_samples=config.num_samples)
