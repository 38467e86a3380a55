"""Scores of captions against human references, with what else is worth a look: diversity, length, copies, intervals."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from evaluation.measures import Bleu, Reals, bleu, bleu_of, cider, rouge_l
from evaluation.tokens import tokens_of, told_tokens

RESAMPLES = 1_000  # of the images, for the intervals
_COVERED = 0.95  # of the resampled scores lie in an interval


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Corpus scores (1.0 = 100 in tables), and those of each image in the order of `images`."""

    bleu: tuple[float, ...]  # BLEU-1 to 4
    rouge_l: float
    cider: float  # as pycocoevalcap prints it: clipped, with a penalty on length (CIDEr-D of Vedantam et al. 2015)
    cider_plain: float  # without both
    tokens: str  # what was compared
    distinct: float  # distinct captions / captions
    vocabulary: int  # distinct tokens
    words: float  # mean length in tokens
    copied: float | None  # share of captions that stand in the training captions; None where those are not known
    images: tuple[str, ...]
    per_image: dict[str, Reals]  # CIDEr, BLEU-4, ROUGE-L: (I,)
    intervals: dict[str, tuple[float, float]]  # 95 %, over resampled images; document frequencies stay

    def as_json(self) -> dict[str, object]:
        """Return the corpus figures with the names that papers give them."""
        return {
            "CIDEr": self.cider,
            **{f"BLEU-{order}": value for order, value in enumerate(self.bleu, start=1)},
            "ROUGE-L": self.rouge_l,
            "CIDEr plain": self.cider_plain,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
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
    """Score one caption an image against that image's references; both are keyed by image id.

    `training` are the captions that the captioner learnt from, where they are known. Raises ValueError where an image has
    no references.
    """
    if missing := sorted(image for image in candidates if not references.get(image)):
        raise ValueError(f"{len(missing)} candidates have no references, {missing[:3]} among them; give references for all")
    images = tuple(candidates)
    given = [tokens_of(candidates[image], language) for image in images]
    known = [[tokens_of(text, language) for text in references[image]] for image in images]
    counted = bleu(given, known)
    per_image = {"CIDEr": cider(given, known), "BLEU-4": counted.per_image[:, 3], "ROUGE-L": rouge_l(given, known)}
    learnt = {tuple(tokens_of(text, language)) for text in training}
    return CaptionScores(
        bleu=counted.scores,
        rouge_l=float(per_image["ROUGE-L"].mean()),
        cider=float(per_image["CIDEr"].mean()),
        cider_plain=float(cider(given, known, plain=True).mean()),
        tokens=told_tokens(language),
        distinct=len(set(map(tuple, given))) / len(given),
        vocabulary=len({token for text in given for token in text}),
        words=sum(map(len, given)) / len(given),
        copied=sum(tuple(text) in learnt for text in given) / len(given) if learnt else None,
        images=images,
        per_image=per_image,
        intervals=_intervals(per_image, counted, resamples),
    )


def _intervals(per_image: dict[str, Reals], counted: Bleu, resamples: int) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals (Efron 1979) over images drawn with replacement."""
    if not resamples:
        return {}
    size = len(counted.lengths)
    dice = np.random.default_rng(0)
    parts = (counted.correct_of, counted.guessed_of, counted.lengths, counted.closest)
    samples: dict[str, list[float]] = {"CIDEr": [], "ROUGE-L": [], "BLEU-4": []}
    for _ in range(resamples):
        drawn = np.bincount(dice.integers(size, size=size), minlength=size)  # (I,) how often each image is drawn
        for name in ("CIDEr", "ROUGE-L"):
            samples[name].append(float(drawn @ per_image[name] / size))
        samples["BLEU-4"].append(float(bleu_of(*((drawn @ part)[None] for part in parts))[0, 3]))
    ends = [(1 - _COVERED) / 2, (1 + _COVERED) / 2]
    return {name: (float(low), float(high)) for name, (low, high) in ((n, np.quantile(v, ends)) for n, v in samples.items())}
