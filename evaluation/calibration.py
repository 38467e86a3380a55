"""Calibration: how far a confidence can be believed, and the fit of the weights that model/confidence.py uses.

A caption is acceptable if it is as good as a person's: its CIDEr against four of the image's references, averaged over which one
is left out, is at least the median of a person's caption against the four others. A word is right if a reference has it, or names
its object class, or the image has a box of that class; words that say nothing about an image are not judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.hallucination import Synonyms
from evaluation.metrics import cider
from evaluation.tokens import tokenize_caption
from model import Caption

Floats = NDArray[np.float64]

_SILENT = (  # words that say nothing about an image
    "a an the of in on at to and or with is are be was were by for from as it its his her their he she they them this that these "
    "those there here some one other another each while who which up down out off over into onto through around near next front "
    "back top side behind beside between under above below along across after before has have having being been very"
)
_FUNCTION_WORDS = frozenset(_SILENT.split())
_BINS = 15
_MIN_CASES = 10  # of a word that has an offset
_OFFSET_VARIANCE = 1.0


@dataclass(frozen=True, slots=True)
class Reliability:
    """How a confidence agrees with what it promises: shares of 1."""

    count: int
    positives: float
    expected_error: float  # expected calibration error over 15 bins of equal count (Guo et al. 2017, section 2)
    brier: float
    auroc: float  # of telling right from wrong
    coverage_at_90: float  # share of the cases, most confident first, of which 90 % are right

    def as_json(self) -> dict[str, float | int]:
        """Return all fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def reliability(confidence: Sequence[float], is_right: Sequence[bool]) -> Reliability:
    """Judge confidences by what was right. Raises ValueError without a right and a wrong case."""
    scores, right = np.asarray(confidence, np.float64), np.asarray(is_right, np.float64)
    if len(scores) != len(right) or not 0 < right.sum() < len(right):
        raise ValueError(f"{int(right.sum())} of {len(right)} cases are right; calibration needs right and wrong ones")
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    error = sum(len(part) * abs(scores[part].mean() - right[part].mean()) for part in bins) / len(scores)
    precision = np.cumsum(right[order[::-1]]) / np.arange(1, len(right) + 1)
    enough = np.flatnonzero(precision >= 0.9)
    return Reliability(
        len(scores),
        float(right.mean()),
        float(error),
        float(((scores - right) ** 2).mean()),
        auroc(scores, right > 0),
        float((enough[-1] + 1) / len(scores)) if len(enough) else 0.0,
    )


def auroc(scores: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive case has the higher score; ties count half (Mann and Whitney 1947)."""
    ranks = mean_ranks(scores)
    positives = int(is_positive.sum())
    return float((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * (len(scores) - positives)))


def mean_ranks(values: Floats) -> Floats:
    """Return the rank of every value, from 1, in the shape of `values`; equal values have the mean of their ranks."""
    _, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[numbers].reshape(values.shape)


def fit_logistic(features: Sequence[Sequence[float]], is_right: Sequence[bool], *, ridge: float = 1e-2) -> tuple[float, ...]:
    """Return intercept and weights of a logistic regression, by Newton's method; `ridge` is per case, on scaled features."""
    return fit_words(features, [""] * len(features), is_right, ridge=ridge)[0]


def fit_words(
    features: Sequence[Sequence[float]], words: Sequence[str], is_right: Sequence[bool], *, ridge: float = 1e-2
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Return intercept, weights, and an offset for every word that has ten cases or more; "" is no word.

    Offsets are random effects: normal around 0 with variance 1, so that few cases move an offset little (Gelman and Hill 2006,
    section 12).
    """
    values, right = np.asarray(features, np.float64), np.asarray(is_right, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    frequent = [word for word, count in Counter(words).items() if word and count >= _MIN_CASES]
    own = np.asarray(words)[:, None] == np.asarray(frequent, dtype=np.str_)[None, :]
    design = np.hstack([np.ones((len(values), 1)), (values - mean) / scale, own])
    weights = np.zeros(design.shape[1])
    count = values.shape[1]
    penalty = np.diag([0.0, *[ridge * len(values)] * count, *[1 / _OFFSET_VARIANCE] * len(frequent)])
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (predicted - right) + penalty @ weights
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + penalty + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    slopes = weights[1 : 1 + count] / scale
    offsets = dict(zip(frequent, map(float, weights[1 + count :]), strict=True))
    return (float(weights[0] - slopes @ mean), *map(float, slopes)), offsets


def acceptable_captions(
    captions: Sequence[str], references: Sequence[Sequence[str]], *, threshold: float | None = None
) -> tuple[list[bool], float]:
    """Return which captions are acceptable, and the threshold: the median CIDEr of a person's caption, or `threshold`.

    Every image needs five references.
    """
    texts = [[tokenize_caption(text) for text in row[:5]] for row in references]
    candidates = [tokenize_caption(text) for text in captions]
    own: list[Floats] = []
    human: list[Floats] = []
    for left_out in range(5):
        others = [[text for number, text in enumerate(row) if number != left_out] for row in texts]
        own.append(cider(candidates, others))
        human.append(cider([row[left_out] for row in texts], others))
    limit = float(np.median(np.concatenate(human))) if threshold is None else threshold
    return [bool(value >= limit) for value in np.mean(own, axis=0)], limit


def judged_words(caption: Caption, references: Sequence[str], objects: Collection[str], synonyms: Synonyms) -> list[bool | None]:
    """Return for each word of a caption whether it is right, None for words that are not judged."""
    shown = {name for text in (*references, *objects) for name in synonyms.mentions(text)}
    stems = {_stem(word) for text in references for word in re.findall(r"\w+", text.lower())}
    verdicts: list[bool | None] = []
    for word in caption.words:
        text = word.text.lower()
        if text in _FUNCTION_WORDS or not text[:1].isalpha():
            verdicts.append(None)
        else:
            verdicts.append(_stem(text) in stems or any(name in shown for name in synonyms.mentions(text)))
    return verdicts


def _stem(word: str) -> str:
    """Return a word without a plural or verb ending: what is left of "dogs", "running" and "wearing"."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word[: -len(ending)]
            return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem.rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word
