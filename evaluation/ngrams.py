"""N-grams of many captions counted at once: what BLEU and CIDEr are made of.

Knows tokens, their order and which captions belong together. Does not know references or scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed: 2^64 over the golden ratio

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]


class Vocabulary:
    """Numbers for tokens, given as they are met: the same token has the same number in every table made with it."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)

    def numbers(self, tokens: Iterable[str]) -> Keys:
        return np.fromiter(map(self._numbers.__getitem__, tokens), np.uint64)


@dataclass(frozen=True, slots=True)
class NgramTable:
    """How often each n-gram of one order occurs in each caption: E entries, one a caption and n-gram that occurs there.

    In the order of owner, n-gram and caption, so that what an owner's captions have of an n-gram stands in a row.
    """

    keys: Keys  # (U,) names of the n-grams, ascending
    ngram: Integers  # (E,) the n-gram's place in keys
    caption: Integers  # (E,)
    count: Integers  # (E,)
    begins: Integers  # (G,) the entries at which another owner's n-gram begins


def count_ngrams(captions: Sequence[Sequence[str]], owner: Integers, vocabulary: Vocabulary) -> Iterator[NgramTable]:
    """Yield the tables of orders 1 to 4; `owner` (C,) says to what each caption belongs and ascends from 0 without a gap.

    An n-gram's key is a 64-bit hash of its token numbers: two different ones among ten million share a key with a
    probability of some 1e-5.
    """
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    token = _mixed(vocabulary.numbers(chain.from_iterable(captions)) + np.uint64(1))  # (N,)
    caption = np.repeat(np.arange(len(captions)), lengths)  # (N,)
    key = token
    for order in range(1, ORDERS + 1):
        size = max(0, len(token) - order + 1)  # places at which an n-gram of this order can begin
        if order > 1:
            key = _mixed(key[:size] * _MULTIPLIER + token[len(token) - size :])
        inside = caption[:size] == caption[len(caption) - size :]  # it ends in the caption that it begins in
        yield _table(key[inside], caption[:size][inside], owner)


def _table(key: Keys, caption: Integers, owner: Integers) -> NgramTable:
    """Count by sorting owner, n-gram and caption as one number: numpy sorts numbers ten times faster than their places."""
    keys, ngram = np.unique(key, return_inverse=True)
    first = np.flatnonzero(np.diff(owner, prepend=-1))  # (O,) each owner's first caption
    own = owner[caption]
    # A caption is named by its place among its owner's: its number in the corpus would not fit in 64 bits beside the others.
    shape = len(first), len(keys), int(np.bincount(owner).max())
    entry, count = np.unique(np.ravel_multi_index((own, ngram, caption - first[own]), shape), return_counts=True)
    own, ngram, place = np.unravel_index(entry, shape)
    begins = np.flatnonzero((np.diff(own, prepend=-1) != 0) | (np.diff(ngram, prepend=-1) != 0))
    return NgramTable(keys, ngram, first[own] + place, count, begins)


def _mixed(values: Keys) -> Keys:
    """Spread every bit over all bits (splitmix64's finaliser, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
