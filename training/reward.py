"""The reward of a caption in self-critical training: CIDEr-D with fixed document frequencies, less what is not in the image.

CIDEr-D: Vedantam et al. 2015, section 4, as in evaluation/metrics.py, on the scale where 1.0 is 100 in tables. A class that the
caption names and the object detector does not find costs a fixed amount: CIDEr alone rewards a frequent object that is not there
(Rohrbach et al. 2018, "Object Hallucination in Image Captioning", section 4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation import coco_synonyms, tokenize_caption

ORDERS = range(1, 5)
HALLUCINATION = 0.3  # of the reward, for each class that is named and not detected
MIN_SCORE = 0.15  # a class with a weaker detection is not in the image
_SIGMA = 6.0  # of the penalty on length, in tokens

Ngram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Counted:
    """The n-grams of a caption of each order, weighted by tf-idf, their norms, and its length in tokens."""

    weights: tuple[dict[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


class CaptionReward:
    """Rewards of captions of known images."""

    def __init__(self, references: Mapping[str, Sequence[str]], classes: Mapping[str, frozenset[str]] | None = None) -> None:
        """`references` are captions by image id; `classes` are those that a detector finds, by image id: images that are not in
        it lose nothing by what a caption names.
        """
        tokens = {image: [tuple(tokenize_caption(text)) for text in texts] for image, texts in references.items()}
        self._frequencies = Counter(
            ngram for texts in tokens.values() for ngram in {ngram for text in texts for ngram in _ngrams(text)}
        )
        self._log_images = math.log(max(2, len(tokens)))
        self._references = {image: [self._count(text) for text in texts] for image, texts in tokens.items()}
        self._classes = classes or {}
        self._synonyms = coco_synonyms()

    def __contains__(self, image: object) -> bool:
        return image in self._references

    def __call__(self, image: str, caption: str) -> float:
        """Return the reward of a caption of an image."""
        own = self._count(tuple(tokenize_caption(caption)))
        references = self._references[image]
        reward = sum(_similarity(own, other) for other in references) / len(references)
        if image in self._classes:
            reward -= HALLUCINATION * len(set(self._synonyms.mentions(caption)) - self._classes[image])
        return reward

    def _count(self, tokens: Sequence[str]) -> _Counted:
        tables: list[dict[Ngram, float]] = [{} for _ in ORDERS]
        for ngram, count in Counter(_ngrams(tokens)).items():
            rarity = self._log_images - math.log(max(1.0, self._frequencies[ngram]))
            tables[len(ngram) - 1][ngram] = count * rarity
        norms = tuple(math.sqrt(sum(value * value for value in table.values())) for table in tables)
        return _Counted(tuple(tables), norms, len(tokens))


def _ngrams(tokens: Sequence[str]) -> list[Ngram]:
    return [tuple(tokens[at : at + order]) for order in ORDERS for at in range(len(tokens) - order + 1)]


def _similarity(own: _Counted, other: _Counted) -> float:
    """Return CIDEr-D of a caption and one reference."""
    total = 0.0
    for weights, others, norm, other_norm in zip(own.weights, other.weights, own.norms, other.norms, strict=True):
        if norm and other_norm:
            clipped = sum(min(value, others[ngram]) * others[ngram] for ngram, value in weights.items() if ngram in others)
            total += clipped / (norm * other_norm)
    return 10 * total / len(ORDERS) * math.exp(-((own.length - other.length) ** 2) / (2 * _SIGMA**2))
