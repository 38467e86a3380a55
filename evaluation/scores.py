"""Scores of captions against human references, with diversity, length, copies of training captions, and intervals."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import Bleu, Floats, bleu, bleu_from_counts, cider, rouge_l
from evaluation.tokens import describe_tokens, tokenize_caption

RESAMPLES = 1_000  # bootstrap samples of the images, for the intervals
_CONFIDENCE = 0.95  # share of the resampled scores inside an interval


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Corpus scores (1.0 = 100 in tables), and those of each image in the order of `images`."""

    bleu: tuple[float, ...]  # BLEU-1 to 4
    rouge_l: float
    cider: float  # as pycocoevalcap prints it: clipped, with a penalty on length (CIDEr-D of Vedantam et al. 2015)
    cider_plain: float  # without both
    tokens: str  # description of the tokens that are compared
    distinct: float  # distinct captions / captions
    vocabulary: int  # distinct tokens
    words: float  # mean length in tokens
    copied: float | None  # share of captions that are also training captions; None if those are unknown
    images: tuple[str, ...]
    per_image: dict[str, Floats]  # CIDEr, BLEU-4, ROUGE-L: (I,)
    intervals: dict[str, tuple[float, float]]  # 95 %, over resampled images with fixed document frequencies

    def as_json(self) -> dict[str, object]:
        """Return the corpus scores under the names that papers use; 1.0 is 100 in tables."""
        return {
            "CIDEr": self.cider,
            **{f"BLEU-{order}": value for order, value in enumerate(self.bleu, start=1)},
            "ROUGE-L": self.rouge_l,
            "CIDEr plain": self.cider_plain,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "images": len(self.images),
            "distinct": self.distinct,
            "vocabulary": self.vocabulary,
            "words": self.words,
            "copied": self.copied,
            "tokens": self.tokens,
        }


def score_captions(
    candidates: dict[str, str],
    references: dict[str, list[str]],
    *,
    language: str = "en",
    training: Collection[str] = (),
    resamples: int = RESAMPLES,
) -> CaptionScores:
    """Score one caption per image against that image's references; both are keyed by image id.

    `training` are the captions that the captioner was trained on, if they are known; `resamples` 0 computes no intervals.
    Raises ValueError if an image has no references.
    """
    if missing := sorted(image for image in candidates if not references.get(image)):
        raise ValueError(
            f"{len(missing)} candidates have no references, among them {missing[:3]}; pass references of every image"
        )
    images = tuple(candidates)
    tokens = [tokenize_caption(candidates[image], language) for image in images]
    reference_tokens = [[tokenize_caption(text, language) for text in references[image]] for image in images]
    bleu_scores = bleu(tokens, reference_tokens)
    per_image = {
        "CIDEr": cider(tokens, reference_tokens),
        "BLEU-4": bleu_scores.per_image[:, 3],
        "ROUGE-L": rouge_l(tokens, reference_tokens),
    }
    training_tokens = {tuple(tokenize_caption(text, language)) for text in training}
    return CaptionScores(
        bleu=bleu_scores.scores,
        rouge_l=float(per_image["ROUGE-L"].mean()),
        cider=float(per_image["CIDEr"].mean()),
        cider_plain=float(cider(tokens, reference_tokens, plain=True).mean()),
        tokens=describe_tokens(language),
        distinct=len(set(map(tuple, tokens))) / len(tokens),
        vocabulary=len({token for text in tokens for token in text}),
        words=sum(map(len, tokens)) / len(tokens),
        copied=sum(tuple(text) in training_tokens for text in tokens) / len(tokens) if training_tokens else None,
        images=images,
        per_image=per_image,
        intervals=_intervals(per_image, bleu_scores, resamples),
    )


def _intervals(per_image: dict[str, Floats], bleu_scores: Bleu, resamples: int) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals (Efron 1979) over images sampled with replacement."""
    if not resamples:
        return {}
    num_images = len(bleu_scores.lengths)
    rng = np.random.default_rng(0)
    counts = (
        bleu_scores.correct_per_image,
        bleu_scores.guessed_per_image,
        bleu_scores.lengths,
        bleu_scores.closest_lengths,
    )
    samples: dict[str, list[float]] = {"CIDEr": [], "ROUGE-L": [], "BLEU-4": []}
    for _ in range(resamples):
        repeats = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)  # (I,) of each image in the sample
        for name in ("CIDEr", "ROUGE-L"):
            samples[name].append(float(repeats @ per_image[name] / num_images))
        samples["BLEU-4"].append(float(bleu_from_counts(*((repeats @ count)[None] for count in counts))[0, 3]))
    quantiles = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    bounds = {name: np.quantile(values, quantiles) for name, values in samples.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
