"""N-grams of many captions counted at once: what BLEU and CIDEr are made of.

Knows tokens and their order. Does not know images, references or scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    """How often each n-gram of one order occurs in each caption; one entry a caption and n-gram that occurs there.

    caption, count (E,) int64; key (E,) uint64 names the n-gram. In the order of paired(caption, key).
    """

    caption: Integers
    key: Keys
    count: Integers


def count_ngrams(captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> list[NgramTable]:
    """Return the tables of orders 1 to 4.

    An n-gram's key is a 64-bit hash of its token numbers: two different ones among ten million share a key with a
    probability of some 1e-5.
    """
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    token = _mixed(vocabulary.numbers(chain.from_iterable(captions)) + np.uint64(1))  # (N,)
    caption = np.repeat(np.arange(len(captions)), lengths)  # (N,)
    tables: list[NgramTable] = []
    key = token
    for order in range(1, ORDERS + 1):
        size = max(0, len(token) - order + 1)  # places at which an n-gram of this order can begin
        if order > 1:
            key = _mixed(key[:size] * _MULTIPLIER + token[len(token) - size :])
        inside = caption[:size] == caption[len(caption) - size :]  # it ends in the caption that it begins in
        tables.append(_table(caption[:size][inside], key[inside]))
    return tables


def paired(owner: Integers, key: Keys) -> Keys:
    """Return one key for an owner (a caption, an image) and an n-gram."""
    return key ^ (owner.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER


def _table(caption: Integers, key: Keys) -> NgramTable:
    _, place, times = np.unique(paired(caption, key), return_index=True, return_counts=True)
    return NgramTable(caption[place], key[place], times)


def _mixed(values: Keys) -> Keys:
    """Spread every bit over all bits (splitmix64's finaliser, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
