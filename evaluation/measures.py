"""BLEU, ROUGE-L and CIDEr of tokenised captions, an image at a time and for a whole corpus, equal to pycocoevalcap's.

Knows tokens. Does not know texts, languages, files or captioners. I images, one candidate each; C captions, candidates and
references; U n-grams, E entries and G groups of a table (ngrams.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.ngrams import ORDERS, Integers, Keys, NgramTable, Vocabulary, count_ngrams

Tokens = Sequence[str]
Reals = NDArray[np.float64]

_SIGMA = 6.0  # tokens; CIDEr-D's penalty on length
_SMALL, _TINY = 1e-9, 1e-15  # pycocoevalcap's guards against division by zero, part of its figures
_BETA = 1.2  # ROUGE-L's weight of recall over precision
_CHUNK = 50_000  # images whose n-grams are held at once


@dataclass(frozen=True, slots=True)
class Bleu:
    """Corpus BLEU-1 to 4, what it is made of, and BLEU-1 to 4 of each image (I, 4)."""

    scores: tuple[float, ...]
    correct: tuple[int, ...]  # n-grams of the candidates that a reference has, each at most as often as the reference
    guessed: tuple[int, ...]
    length: int  # tokens of the candidates
    reference_length: int  # of each image the reference whose length is closest, the shorter of two
    per_image: Reals
    correct_of: Integers  # the counts of each image: (I, 4)
    guessed_of: Integers
    lengths: Integers  # (I,)
    closest: Integers


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Bleu:
    """Return BLEU (Papineni et al. 2002) with pycocoevalcap's choices: closest length, no smoothing.

    Here and below: ValueError where candidates and references do not belong together.
    """
    _check(candidates, references)
    lengths = np.fromiter(map(len, candidates), np.int64, len(candidates))
    closest = np.array(
        [
            min((abs(len(text) - length), len(text)) for text in texts)[1]
            for texts, length in zip(references, lengths, strict=True)
        ]
    )
    orders = np.arange(ORDERS)
    guessed = np.maximum(0, lengths[:, None] - orders)  # (I, 4)
    parts = (_Counted.of(candidates[part], references[part], Vocabulary()) for part in _chunks(len(candidates)))
    correct = np.concatenate([_correct(part) for part in parts])  # (I, 4)
    totals = correct.sum(axis=0), guessed.sum(axis=0)
    scores = bleu_of(totals[0][None], totals[1][None], lengths.sum()[None], closest.sum()[None])[0]
    return Bleu(
        tuple(map(float, scores)),
        tuple(map(int, totals[0])),
        tuple(map(int, totals[1])),
        int(lengths.sum()),
        int(closest.sum()),
        bleu_of(correct, guessed, lengths, closest),
        correct,
        guessed,
        lengths,
        closest,
    )


def bleu_of(correct: Integers, guessed: Integers, length: Integers, reference_length: Integers) -> Reals:
    """Return BLEU-1 to 4 (I, 4) of counts (I, 4) and lengths (I,), of images or of whole corpora."""
    precisions = (correct + _TINY) / (guessed + _SMALL)
    scores = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return scores * np.exp(np.minimum(0, 1 - 1 / ratio))[:, None]


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Reals:
    """Return ROUGE-L of each image (I,) (Lin 2004): best precision and best recall over the references, beta 1.2."""
    _check(candidates, references)
    scores = np.zeros(len(candidates))
    empty = ("",)  # without a token a caption counts as one empty token, as in the reference
    for image in range(len(candidates)):
        candidate, texts = candidates[image] or empty, [text or empty for text in references[image]]
        common = [common_length(candidate, text) for text in texts]
        precision = max(common) / len(candidate)
        recall = max(found / len(text) for found, text in zip(common, texts, strict=True))
        if precision and recall:
            scores[image] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return scores


def common_length(one: Tokens, other: Tokens) -> int:
    """Return the length of the longest common subsequence, a machine word of steps at once (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(one):
        places[token] = places.get(token, 0) | 1 << place
    every = (1 << len(one)) - 1
    free = every  # a bit is cleared where the subsequence grows
    for token in other:
        met = free & places.get(token, 0)
        free = (free + met | free - met) & every
    return len(one) - free.bit_count()


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, plain: bool = False) -> Reals:
    """Return CIDEr of each image (I,), 10 at best (Vedantam et al. 2015); its mean is the corpus's.

    What pycocoevalcap calls CIDEr, and every paper prints, is the paper's CIDEr-D: counts clipped, a penalty on length.
    `plain` leaves out both (section 3). Document frequencies are those of these references.
    """
    _check(candidates, references)
    vocabulary = Vocabulary()
    chunks = _chunks(len(candidates))

    def counted() -> Iterator[_Counted]:
        return (_Counted.of(candidates[part], references[part], vocabulary) for part in chunks)

    held = None
    if len(chunks) == 1:  # the tables of more would fill the memory and are made twice instead
        held = [replace(part, tables=list(part.tables)) for part in counted()]
    frequencies = _frequencies(held or counted())
    images = math.log(len(references))
    return np.concatenate([_cider(part, frequencies, images, plain=plain) for part in held or counted()])


@dataclass(frozen=True, slots=True)
class _Counted:
    """The captions of some images in a row, each image's candidate before its references, and their n-grams."""

    image: Integers  # (C,)
    is_candidate: NDArray[np.bool_]  # (C,)
    lengths: Integers  # (C,) tokens
    tables: Iterable[NgramTable]  # an order each, one at a time

    @classmethod
    def of(cls, candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], vocabulary: Vocabulary) -> _Counted:
        texts = [text for own, known in zip(candidates, references, strict=True) for text in (own, *known)]
        counts = np.fromiter(map(len, references), np.int64, len(references))
        image = np.repeat(np.arange(len(candidates)), counts + 1)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(image, np.diff(image, prepend=-1) > 0, lengths, count_ngrams(texts, image, vocabulary))


def _chunks(images: int) -> list[slice]:
    return [slice(first, first + _CHUNK) for first in range(0, images, _CHUNK)]


def _check(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but references of {len(references)} images; one candidate an image")
    if not all(references):
        raise ValueError("an image has no reference; leave it out")
    if not candidates:
        raise ValueError("there is no candidate to score")


def _correct(part: _Counted) -> Integers:
    """Return how many n-grams of each candidate its references confirm: (I, 4)."""
    found = []
    for table in part.tables:
        caption = table.caption[table.begins]  # (G,) the candidate, where it has the n-gram
        mine = np.where(part.is_candidate[caption], table.count[table.begins], 0)
        found.append(_sums(part.image[caption], np.minimum(mine, _most(part, table)), part.image[-1] + 1))
    return np.stack(found, axis=1).astype(np.int64)


def _most(part: _Counted, table: NgramTable) -> Integers:
    """Return how often the reference that has it most often has each image's n-gram: (G,)."""
    return np.maximum.reduceat(np.where(part.is_candidate[table.caption], 0, table.count), table.begins)


def _frequencies(parts: Iterable[_Counted]) -> list[tuple[Keys, Integers]]:
    """Return, an order each, the n-grams of all captions and in how many images a reference has them."""
    found: list[list[tuple[Keys, Integers]]] = [[] for _ in range(ORDERS)]
    for part in parts:
        for order, table in enumerate(part.tables):
            ngram = table.ngram[table.begins[_most(part, table) > 0]]
            found[order].append((table.keys, np.bincount(ngram, minlength=len(table.keys))))
    return [_summed(*map(np.concatenate, zip(*rows, strict=True))) if len(rows) > 1 else rows[0] for rows in found]


def _summed(key: Keys, count: Integers) -> tuple[Keys, Integers]:
    unique, where = np.unique(key, return_inverse=True)
    return unique, np.bincount(where, count, len(unique)).astype(np.int64)


def _cider(part: _Counted, frequencies: list[tuple[Keys, Integers]], images: float, *, plain: bool) -> Reals:
    own = np.flatnonzero(part.is_candidate)[part.image]  # (C,) the candidate of each caption's image
    scores = np.zeros(len(own))  # of each caption beside that candidate
    for table, (known, frequency) in zip(part.tables, frequencies, strict=True):
        in_images = np.maximum(1, frequency[np.searchsorted(known, table.keys)])  # (U,) none counts as one
        weight = table.count * (images - np.log(in_images))[table.ngram]  # (E,) tf-idf
        norm = np.sqrt(_sums(table.caption, weight**2, len(own)))
        # Beside each entry the weight of the same n-gram in the candidate of its image, 0 where it has none.
        mine = np.where(part.is_candidate[table.caption[table.begins]], weight[table.begins], 0.0)  # (G,)
        beside = np.repeat(mine, np.diff(table.begins, append=len(weight)))  # (E,)
        product = (beside if plain else np.minimum(beside, weight)) * weight
        dot = _sums(table.caption, product, len(own))
        scale = norm * norm[own]
        scores += np.divide(dot, scale, out=dot.copy(), where=scale != 0)
    if not plain:
        # The reference code counts a caption's bigrams for its length; so one token more or less than a caption has.
        length = np.maximum(0, part.lengths - 1).astype(np.float64)
        scores *= np.exp(-((length - length[own]) ** 2) / (2 * _SIGMA**2))
    scores[part.is_candidate] = 0  # only the references count
    return 10 / ORDERS * np.bincount(part.image, scores) / (np.bincount(part.image) - 1)


def _sums(where: Integers, values: Integers | Reals, count: int) -> Reals:
    """Return the sum of the values of each of `count` owners."""
    return np.bincount(where, values, count).astype(np.float64)  # numpy's is of integers where there is no value
