"""Shorter forms of a caption: its beginnings that are complete, so that a caption can say less and be surer of it."""

from __future__ import annotations

from collections.abc import Sequence

from model.tokenizer import CaptionTokenizer

# English words that something more begins with: without it and what follows, the caption is still complete.
_WORDS = (
    "with in on at and while near next behind under over by for from to as that who which beside between through across along "
    "into onto around above below against inside outside during wearing holding carrying"
)
_OPENING = frozenset(_WORDS.split())
_MIN_WORDS = 2


def shorter_captions(tokenizer: CaptionTokenizer, tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the complete beginnings of an English caption, longest first, without the caption itself.

    A beginning ends before a preposition, a conjunction or the like, has at least two words and ends with none of these words.
    """
    text, spans = tokenizer.decode(tokens), tokenizer.words(tokens)
    words = [text[span.start : span.end].lower() for span in spans]
    beginnings = []
    for number in range(len(spans) - 1, _MIN_WORDS - 1, -1):
        cut = spans[number].tokens[0]
        is_shared = cut in spans[number - 1].tokens  # a token that holds the end of one word and the start of the next
        if words[number] in _OPENING and words[number - 1] not in _OPENING and not is_shared:
            last = spans[number - 1].tokens[-1] + 1  # a comma before the cut goes, too
            beginnings.append(tuple(tokens[:last]))
    return beginnings
