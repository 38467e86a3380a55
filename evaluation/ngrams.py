"""N-grams of many captions counted at once: what BLEU and CIDEr are made of.

Knows tokens and their order. Does not know images, references or scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed: 2^64 over the golden ratio

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]


class Vocabulary:
    """Numbers for tokens, given as they are met: the same token has the same number in every table made with it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, tokens: Iterable[str]) -> list[int]:
        known = self._numbers
        return [known.setdefault(token, len(known)) for token in tokens]


@dataclass(frozen=True, slots=True)
class NgramTable:
    """How often each n-gram of one order occurs in each caption; one entry a caption and n-gram that occurs there.

    caption, count (E,) int64; key (E,) uint64 names the n-gram. Sorted by caption, then by key.
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
    numbers = vocabulary.numbers(token for caption in captions for token in caption)
    token = _mixed(np.array(numbers, np.uint64) + np.uint64(1))  # (N,)
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


def starts(sorted_values: Integers, count: int) -> Integers:
    """Return where each of 0 … count begins in sorted values: (count + 1,), the last is their number."""
    return np.searchsorted(sorted_values, np.arange(count + 1))


def _table(caption: Integers, key: Keys) -> NgramTable:
    order = np.lexsort((key, caption))
    caption, key = caption[order], key[order]
    first = np.ones(len(key), dtype=bool)
    first[1:] = (caption[1:] != caption[:-1]) | (key[1:] != key[:-1])
    places = np.flatnonzero(first)
    count = np.diff(places, append=len(key))
    return NgramTable(caption[places], key[places], count)


def _mixed(values: Keys) -> Keys:
    """Spread every bit over all bits (splitmix64's finaliser, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
