"""Every number that is published is made here."""

from evaluation.captions import CaptionScores, score_captions, tokenised

__all__ = [
    "CaptionScores",
    "score_captions",
    "tokenised",
]
