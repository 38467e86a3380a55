"""Confidence of captions and words: a logistic model over their probabilities and reliances, fitted by evaluation/calibration.py.

confidence = 1 / (1 + exp(-(w[0] + sum of w[i] x[i] + offset))), x as the functions below return them (Platt 1999, with more
features). Frequent words have an offset of their own: a "dog" is right more often than a "shirt" of the same probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

CAPTION_FEATURES = ("mean log p", "lowest log p", "mean reliance", "lowest reliance", "ln words")
WORD_FEATURES = ("log p", "reliance", "log p of the word before", "mean log p", "mean reliance")


def caption_features(log_probs: Sequence[float], reliances: Sequence[float]) -> list[float]:
    """Return the features of a caption from those of its words, in nats, at least one; in the order of CAPTION_FEATURES."""
    count = len(log_probs)
    return [sum(log_probs) / count, min(log_probs), sum(reliances) / count, min(reliances), math.log(count)]


def word_features(log_probs: Sequence[float], reliances: Sequence[float]) -> list[list[float]]:
    """Return the features of each word of a caption, in the order of WORD_FEATURES."""
    mean, mean_reliance = sum(log_probs) / max(1, len(log_probs)), sum(reliances) / max(1, len(reliances))
    before = [0.0, *log_probs[:-1]]
    return [
        [log_prob, reliance, previous, mean, mean_reliance]
        for log_prob, reliance, previous in zip(log_probs, reliances, before, strict=True)
    ]


def word_confidences(
    weights: Sequence[float], offsets: Mapping[str, float], words: Sequence[str], features: Sequence[Sequence[float]]
) -> list[float]:
    """Return the probability of each word; `features` are those of `word_features`, `offsets` are by word in lower case."""
    return [logistic(weights, own, offsets.get(word.lower(), 0.0)) for word, own in zip(words, features, strict=True)]


def logistic(weights: Sequence[float], features: Sequence[float], offset: float = 0.0) -> float:
    """Return the probability: intercept first, then a weight for each feature."""
    score = offset + weights[0] + sum(weight * value for weight, value in zip(weights[1:], features, strict=True))
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, score))))
