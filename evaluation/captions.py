"""Scores of captions against human references: BLEU and CIDEr by pycocoevalcap's code.

Captions are compared as lower-cased runs of letters and digits. That is not the PTB tokenizer of published figures:
compare these numbers with each other, not with a paper's.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Corpus scores (1.0 = 100 in tables) and what else is worth a look."""

    bleu: tuple[float, float, float, float]
    cider: float
    images: int
    distinct: float  # distinct captions / captions
    words: float  # mean length

    def as_json(self) -> dict[str, float]:
        return {
            **{f"BLEU-{order}": value for order, value in enumerate(self.bleu, start=1)},
            "CIDEr": self.cider,
            "images": self.images,
            "distinct": self.distinct,
            "words": self.words,
        }


def score_captions(candidates: dict[str, str], references: dict[str, list[str]]) -> CaptionScores:
    """Score one caption an image against that image's references; both are keyed by image id."""
    from pycocoevalcap.bleu.bleu import Bleu  # an extra: whoever only serves does not have it
    from pycocoevalcap.cider.cider import Cider

    if missing := sorted(candidates.keys() - references.keys()):
        raise ValueError(f"{len(missing)} candidates have no references, {missing[:3]} among them; give references for all")
    given = {image: [tokenised(text)] for image, text in candidates.items()}
    known = {image: [tokenised(text) for text in references[image]] for image in candidates}
    with contextlib.redirect_stdout(io.StringIO()):  # the scorers print
        bleu, _ = Bleu(4).compute_score(known, given)
        cider, _ = Cider().compute_score(known, given)
    lengths = [len(texts[0].split()) for texts in given.values()]
    return CaptionScores(
        (float(bleu[0]), float(bleu[1]), float(bleu[2]), float(bleu[3])),
        float(cider),
        len(given),
        len(set(candidates.values())) / len(candidates),
        sum(lengths) / len(lengths),
    )


def tokenised(text: str) -> str:
    """Return the lower-cased runs of letters and digits, joined by single spaces."""
    return " ".join(_WORD.findall(text.lower()))
