"""Weak captions, chosen again by a captioner: those that its image raises most.

The gain of a caption is log p(caption | image) - log p(caption | no image), per token: how much the image says about it. A
caption that the image lowers is dropped.

Shapes: R captions, T tokens, S image tokens, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model import CaptionNetwork, CaptionTokenizer, ImageFeatures
from training.data import CaptionEncoder, collate


class CaptionGains:
    """Computes gains of captions; what depends on the caption alone is computed once."""

    def __init__(self, network: CaptionNetwork, tokenizer: CaptionTokenizer, texts: Sequence[str], language: str = "en") -> None:
        """`texts` are all captions that may be asked for, by index."""
        self._network = network.eval()
        config = network.config
        encode = CaptionEncoder(tokenizer, config, 40)
        self._ids = [encode(text, language) for text in texts]
        self._special = 1 + bool(config.language_token_ids)
        self._pad = config.decoder.pad_token_id
        self._without: dict[int, float] = {}

    @torch.inference_mode()
    def __call__(self, features: ImageFeatures, captions: Sequence[Sequence[int]]) -> list[list[tuple[float, float]]]:
        """Return (gain, log-probability) per token, in nats, of the captions (indices) of each image."""
        flat = [index for part in captions for index in part]
        self._score_without([index for index in set(flat) if index not in self._without])
        image_of = tuple(number for number, part in enumerate(captions) for _ in part)
        means = iter(self._means(features, flat, image_of).tolist())
        return [[(mean - self._without[index], mean) for index, mean in zip(part, means, strict=False)] for part in captions]

    def _score_without(self, indices: list[int]) -> None:
        indices.sort(key=lambda index: len(self._ids[index]))
        for first in range(0, len(indices), 256):
            part = indices[first : first + 256]
            means = self._means(self._network.unconditional(), part, (0,) * len(part))
            self._without |= dict(zip(part, means.tolist(), strict=True))

    def _means(self, features: ImageFeatures, indices: Sequence[int], image_of: tuple[int, ...]) -> Tensor:
        """Return the mean log-probability of the tokens of each caption, (R,)."""
        tokens, is_target = collate([self._ids[index] for index in indices], self._special, self._pad)
        state = self._network.start(features, image_of)
        logits, _, _ = self._network.decode(tokens[:, :-1], state, logits_mask=is_target)  # (N, V)
        scores = -torch.nn.functional.cross_entropy(logits, tokens[:, 1:][is_target], reduction="none")
        rows = is_target.nonzero()[:, 0]
        return scores.new_zeros(len(indices)).index_add(0, rows, scores) / is_target.sum(dim=1)
