"""BLEU, ROUGE-L and CIDEr of tokenised captions, an image at a time and for a whole corpus, equal to pycocoevalcap's.

Knows tokens. Does not know texts, languages, files or captioners. I images, one candidate each; E entries of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.ngrams import ORDERS, Integers, Keys, NgramTable, Vocabulary, count_ngrams, paired

Tokens = Sequence[str]
Reals = NDArray[np.float64]
Number = TypeVar("Number", np.int64, np.float64)

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
    correct = np.concatenate([_correct(candidates[part], references[part]) for part in _chunks(len(candidates))])  # (I, 4)
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
    parts = _chunks(len(candidates))
    whole = _Counted.of(references, vocabulary) if len(parts) == 1 else None
    frequencies = _frequencies([whole] if whole else (_Counted.of(references[part], vocabulary) for part in parts))
    images = math.log(len(references))
    return np.concatenate(
        [
            _cider(
                candidates[part],
                whole or _Counted.of(references[part], vocabulary),
                vocabulary,
                frequencies,
                images,
                plain=plain,
            )
            for part in parts
        ]
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """References of some images in a row, the image of each, and their n-grams."""

    texts: list[Tokens]
    image: Integers
    tables: list[NgramTable]

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]], vocabulary: Vocabulary) -> _Counted:
        texts, image = _owners(references)
        return cls(texts, image, count_ngrams(texts, vocabulary))


def _chunks(images: int) -> list[slice]:
    return [slice(first, first + _CHUNK) for first in range(0, images, _CHUNK)]


def _check(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but references of {len(references)} images; one candidate an image")
    if not all(references):
        raise ValueError("an image has no reference; leave it out")
    if not candidates:
        raise ValueError("there is no candidate to score")


def _owners(references: Sequence[Sequence[Tokens]]) -> tuple[list[Tokens], Integers]:
    """Return all references in a row, and the image of each."""
    counts = np.fromiter(map(len, references), np.int64, len(references))
    return [text for texts in references for text in texts], np.repeat(np.arange(len(references)), counts)


def _correct(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Integers:
    """Return how many n-grams of each candidate its references confirm: (I, 4)."""
    vocabulary = Vocabulary()
    texts, image = _owners(references)
    found = np.zeros((len(candidates), ORDERS), np.int64)
    for order, (mine, theirs) in enumerate(
        zip(count_ngrams(candidates, vocabulary), count_ngrams(texts, vocabulary), strict=True)
    ):
        owner = image[theirs.caption]
        by_count = np.argsort(-theirs.count, kind="stable")  # of each image's n-gram the largest count comes first
        owner, key, count = owner[by_count], theirs.key[by_count], theirs.count[by_count]
        _, place = np.unique(paired(owner, key), return_index=True)
        most = _lookup(owner[place], key[place], count[place], mine.caption, mine.key)
        np.add.at(found[:, order], mine.caption, np.minimum(mine.count, most))
    return found


def _frequencies(parts: Iterable[_Counted]) -> list[tuple[Keys, Integers]]:
    """Return, an order each, the n-grams of the references and in how many images they occur."""
    found: list[list[tuple[Keys, Integers]]] = [[] for _ in range(ORDERS)]
    for part in parts:
        for order, table in enumerate(part.tables):
            _, place = np.unique(paired(part.image[table.caption], table.key), return_index=True)  # once an image
            found[order].append(np.unique(table.key[place], return_counts=True))
    return [_summed(*map(np.concatenate, zip(*rows, strict=True))) for rows in found]


def _summed(key: Keys, count: Integers) -> tuple[Keys, Integers]:
    unique, where = np.unique(key, return_inverse=True)
    return unique, np.bincount(where, count, len(unique)).astype(np.int64)


def _cider(
    candidates: Sequence[Tokens],
    references: _Counted,
    vocabulary: Vocabulary,
    frequencies: list[tuple[Keys, Integers]],
    images: float,
    *,
    plain: bool,
) -> Reals:
    texts, image = references.texts, references.image
    scores = np.zeros(len(texts))  # of each pair of a reference and its image's candidate
    # The reference code counts a caption's bigrams for its length; so one token more or less than a caption has.
    lengths = [np.fromiter((max(0, len(text) - 1) for text in side), np.int64) for side in (candidates, texts)]
    gap = lengths[0][image] - lengths[1]
    for mine, theirs, (known, frequency) in zip(
        count_ngrams(candidates, vocabulary), references.tables, frequencies, strict=True
    ):
        my_weight = _weights(mine, known, frequency, images)
        their_weight = _weights(theirs, known, frequency, images)
        norms = [
            np.sqrt(_sums(table.caption, weight**2, count))
            for table, weight, count in ((mine, my_weight, len(candidates)), (theirs, their_weight, len(texts)))
        ]
        # Each entry of a reference beside the same n-gram of the candidate of its image, 0 where it has none.
        beside = _lookup(mine.caption, mine.key, my_weight, image[theirs.caption], theirs.key)
        product = (beside if plain else np.minimum(beside, their_weight)) * their_weight
        dot = _sums(theirs.caption, product, len(texts))
        scale = norms[0][image] * norms[1]
        scores += np.divide(dot, scale, out=dot.copy(), where=scale != 0)
    if not plain:
        scores *= np.exp(-(gap.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    counts = np.bincount(image, minlength=len(candidates))
    return 10 / ORDERS * _sums(image, scores, len(candidates)) / counts


def _weights(table: NgramTable, known: Keys, frequency: Integers, images: float) -> Reals:
    """Return the tf-idf of each entry (E,); an n-gram that no reference has counts as in one image."""
    place = np.minimum(np.searchsorted(known, table.key), max(0, len(known) - 1))
    hit = known[place] == table.key if len(known) else np.zeros(len(table.key), dtype=bool)
    in_images = np.where(hit, frequency[place] if len(known) else 1, 1)
    return table.count * (images - np.log(np.maximum(1, in_images)))


def _lookup(owner: Integers, key: Keys, value: NDArray[Number], at_owner: Integers, at_key: Keys) -> NDArray[Number]:
    """Return the values at (owner, key) pairs, 0 where there is none; the pairs are unique and in the order of paired()."""
    if len(key) == 0:
        return np.zeros(len(at_key), value.dtype)
    known, wanted = paired(owner, key), paired(at_owner, at_key)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, value[place], value.dtype.type(0))


def _sums(where: Integers, values: Reals, count: int) -> Reals:
    """Return the sum of the values of each of `count` owners."""
    return np.bincount(where, values, count).astype(np.float64)  # numpy's is of integers where there is no value
