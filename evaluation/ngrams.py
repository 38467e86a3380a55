"""N-gram counts of many captions at once, the input of BLEU and CIDEr.

Shapes: C captions, E entries (one per caption and n-gram that occurs in it), O owners of captions (images), U distinct n-grams,
G pairs of an owner and an n-gram, N tokens of all captions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray

MAX_ORDER = 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, with well mixed bits: 2^64 over the golden ratio

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]


class TokenNumbers:
    """Numbers tokens in the order of their first use: a token has the same number in every table made with this object."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)

    def number(self, tokens: Iterable[str]) -> Keys:
        """Return the number of each token, (N,)."""
        return np.fromiter(map(self._numbers.__getitem__, tokens), np.uint64)


@dataclass(frozen=True, slots=True)
class NgramTable:
    """How often each n-gram of one order occurs in each caption: E entries, one per caption and n-gram.

    Entries are sorted by owner, n-gram and caption, so all entries of an owner's n-gram are adjacent.
    """

    keys: Keys  # (U,) hashes of the n-grams, ascending
    ngram: Integers  # (E,) the n-gram's index in keys
    caption: Integers  # (E,)
    count: Integers  # (E,)
    starts: Integers  # (G,) the first entry of each pair of owner and n-gram


def count_ngrams(captions: Sequence[Sequence[str]], owner: Integers, numbers: TokenNumbers) -> Iterator[NgramTable]:
    """Yield the tables of orders 1 to 4; `owner` (C,) is the image of each caption, ascending from 0 without a gap.

    An n-gram's key is a 64-bit hash of its token numbers: the probability that two of ten million different n-grams share a
    key is about 1e-5.
    """
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    token = _mix_bits(numbers.number(chain.from_iterable(captions)) + np.uint64(1))  # (N,)
    caption = np.repeat(np.arange(len(captions)), lengths)  # (N,)
    key = token
    for order in range(1, MAX_ORDER + 1):
        size = max(0, len(token) - order + 1)  # positions at which an n-gram of this order can start
        if order > 1:
            key = _mix_bits(key[:size] * _MULTIPLIER + token[len(token) - size :])
        inside = caption[:size] == caption[len(caption) - size :]  # it starts and ends in the same caption
        yield _table(key[inside], caption[:size][inside], owner)


def _table(key: Keys, caption: Integers, owner: Integers) -> NgramTable:
    """Count by sorting owner, n-gram and caption as one number: numpy sorts numbers ten times faster than it argsorts."""
    keys, ngram = np.unique(key, return_inverse=True)
    first = np.flatnonzero(np.diff(owner, prepend=-1))  # (O,) each owner's first caption
    entry_owner = owner[caption]
    # A caption is identified by its index among its owner's: its number in the corpus would not fit in 64 bits with the others.
    shape = len(first), len(keys), int(np.bincount(owner).max())
    entry, count = np.unique(np.ravel_multi_index((entry_owner, ngram, caption - first[entry_owner]), shape), return_counts=True)
    entry_owner, ngram, index = np.unravel_index(entry, shape)
    starts = np.flatnonzero((np.diff(entry_owner, prepend=-1) != 0) | (np.diff(ngram, prepend=-1) != 0))
    return NgramTable(keys, ngram, first[entry_owner] + index, count, starts)


def _mix_bits(values: Keys) -> Keys:
    """Spread every bit over all bits (splitmix64's finalizer, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
