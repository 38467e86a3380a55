"""Which words fit a photograph: a linear probe on pooled features, and captions ranked by it.

The probe predicts, for every word, the share of a photograph's captions that have it (logistic regression on the mean and the
maximum of the frozen feature maps). A caption fits by how much more likely its words are than in captions on average. Ranking
weak captions by it, fitting it to those that were chosen and ranking again is self-training (Scudder 1965; Lee 2013,
"Pseudo-Label"): no captioner has to be trained first.

Shapes: N images, F features, W words, K captions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from training.features import FeatureCache

Ranked = list[tuple[float, int]]  # (score, index of a text), best first

AGREEMENT, CONSENSUS = 8.0, 5.0  # chosen on photographs with human captions (docs/decisions.md)
_CONSENSUS_OF = 60  # candidates
MIN_COUNT = 30  # captions that have a word, for it to be predicted
_EPOCHS, _BATCH, _LR, _WEIGHT_DECAY = 15, 256, 0.5, 1e-4
_WORD = re.compile(r"[a-z]+")
_FLOOR = 1e-3  # added to the share of captions with a word: a rare word decides nothing on its own


def words_of(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return _WORD.findall(caption.lower())


def pooled(cache: FeatureCache) -> Tensor:
    """Return (N, F) float32: the mean and the maximum of every feature map of every image."""
    rows = []
    for first in range(0, len(cache), 256):
        numbers = list(range(first, min(first + 256, len(cache))))
        maps = [value.flatten(2) for value in cache.read(numbers, [0] * len(numbers))]
        rows.append(torch.cat([part for value in maps for part in (value.mean(dim=2), value.amax(dim=2))], dim=1))
    return torch.cat(rows)


class WordProbe:
    """Predicts the words of an image's captions."""

    def __init__(self, captions: Sequence[str]) -> None:
        """`captions` decide which words are predicted, and how common each is."""
        counts = Counter(word for text in captions for word in set(words_of(text)))
        self.words = sorted(word for word, count in counts.items() if count >= MIN_COUNT)
        self._index = {word: number for number, word in enumerate(self.words)}
        share = torch.tensor([counts[word] / len(captions) for word in self.words])
        self._prior = torch.log((share + _FLOOR) / (1 - share + _FLOOR))

    def occurrences(self, captions: Sequence[str]) -> Tensor:
        """Return (K, W) float32: 1 where a caption has a word."""
        table = torch.zeros(len(captions), len(self.words))
        for row, text in enumerate(captions):
            table[row, [self._index[word] for word in set(words_of(text)) if word in self._index]] = 1.0
        return table

    def fit(self, features: Tensor, captions: Sequence[Sequence[str]]) -> None:
        """Fit the probe to images (N, F) and the captions of each."""
        targets = torch.stack([self.occurrences(texts).mean(dim=0) for texts in captions])  # (N, W)
        self._mean, self._std = features.mean(dim=0), features.std(dim=0) + 1e-3
        inputs = (features - self._mean) / self._std
        self._weight = torch.zeros(len(self.words), features.size(1), requires_grad=True)
        self._bias = self._prior.clone().requires_grad_()
        optimizer = torch.optim.Adam([self._weight, self._bias], lr=_LR / features.size(1))
        generator = torch.Generator().manual_seed(0)
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(inputs), generator=generator).split(_BATCH):
                logits = functional.linear(inputs[batch], self._weight, self._bias)
                loss = functional.binary_cross_entropy_with_logits(logits, targets[batch]) * len(self.words)
                loss = loss + _WEIGHT_DECAY * self._weight.square().sum() / 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    @torch.inference_mode()
    def raises(self, features: Tensor) -> Tensor:
        """Return (N, W): by how much each image raises log(p / (1 - p)) of each word over its share in captions."""
        probability = functional.linear((features - self._mean) / self._std, self._weight, self._bias).sigmoid()
        ratio = torch.log((probability + _FLOOR) / (1 - probability + _FLOOR))
        raised: Tensor = ratio - self._prior
        return raised


def rank_by_words(
    raises: Tensor,
    occurrences: Tensor,
    candidates: Sequence[Ranked],
    *,
    agreement: float = AGREEMENT,
    consensus: float = CONSENSUS,
) -> list[Ranked]:
    """Return for each image its candidates (agreement with the detector, text), as (score, text), best first.

    The score is the mean raise of the caption's words, plus `agreement` times the agreement, plus `consensus` times the cosine
    between the words of the caption, weighted by rarity, and those of the candidates that are best without it (minimum Bayes
    risk: Kumar and Byrne 2004).
    """
    lengths = occurrences.sum(dim=1).clamp(min=1)
    rarity = -torch.log(occurrences.mean(dim=0) + _FLOOR / 10)
    vectors = functional.normalize(occurrences * rarity, dim=1)  # (K, W)
    ranked: list[Ranked] = []
    for image, own in enumerate(candidates):
        numbers = torch.tensor([number for _, number in own], dtype=torch.long)
        fits = (occurrences[numbers] @ raises[image]) / lengths[numbers]
        scores = fits + agreement * torch.tensor([value for value, _ in own])
        best = scores.argsort(descending=True)[:_CONSENSUS_OF]
        center = scores[best].softmax(dim=0) @ vectors[numbers[best]]  # (W,)
        scores = scores + consensus * (vectors[numbers] @ functional.normalize(center, dim=0))
        ranked.append(sorted(zip(scores.tolist(), numbers.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])))
    return ranked
