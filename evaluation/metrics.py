"""BLEU, ROUGE-L and CIDEr of tokenized captions, per image and for a corpus, equal to pycocoevalcap's.

Shapes: I images, one candidate each; C captions, candidates and references; U n-grams, E entries and G groups of a table
(ngrams.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.ngrams import MAX_ORDER, Integers, Keys, NgramTable, TokenNumbers, count_ngrams

Tokens = Sequence[str]
Floats = NDArray[np.float64]

_SIGMA = 6.0  # tokens; CIDEr-D's length penalty
_SMALL, _TINY = 1e-9, 1e-15  # pycocoevalcap's guards against division by zero, part of its scores
_BETA = 1.2  # ROUGE-L's weight of recall over precision
_CHUNK = 50_000  # images whose n-grams are in memory at once


@dataclass(frozen=True, slots=True)
class Bleu:
    """Corpus BLEU-1 to 4, the counts that they are computed from, and BLEU-1 to 4 of each image (I, 4)."""

    scores: tuple[float, ...]
    correct: tuple[int, ...]  # n-grams of the candidates that a reference has, each at most as often as the reference
    guessed: tuple[int, ...]  # n-grams of the candidates
    length: int  # tokens of the candidates
    reference_length: int  # tokens of each image's closest reference in length, the shorter of two equally close ones
    per_image: Floats
    correct_per_image: Integers  # (I, 4)
    guessed_per_image: Integers  # (I, 4)
    lengths: Integers  # (I,)
    closest_lengths: Integers  # (I,)


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Bleu:
    """Return BLEU (Papineni et al. 2002) with pycocoevalcap's choices: closest length, no smoothing.

    Raises ValueError if there is no candidate, if an image has no reference, or if their numbers of images differ; so do the
    functions below.
    """
    _check(candidates, references)
    lengths = np.fromiter(map(len, candidates), np.int64, len(candidates))
    closest_lengths = np.array(
        [
            min((abs(len(text) - length), len(text)) for text in texts)[1]
            for texts, length in zip(references, lengths, strict=True)
        ]
    )
    orders = np.arange(MAX_ORDER)
    guessed = np.maximum(0, lengths[:, None] - orders)  # (I, 4)
    parts = (_CountedCaptions.of(candidates[part], references[part], TokenNumbers()) for part in _chunks(len(candidates)))
    correct = np.concatenate([_correct(part) for part in parts])  # (I, 4)
    totals = correct.sum(axis=0), guessed.sum(axis=0)
    scores = bleu_from_counts(totals[0][None], totals[1][None], lengths.sum()[None], closest_lengths.sum()[None])[0]
    return Bleu(
        tuple(map(float, scores)),
        tuple(map(int, totals[0])),
        tuple(map(int, totals[1])),
        int(lengths.sum()),
        int(closest_lengths.sum()),
        bleu_from_counts(correct, guessed, lengths, closest_lengths),
        correct,
        guessed,
        lengths,
        closest_lengths,
    )


def bleu_from_counts(correct: Integers, guessed: Integers, length: Integers, reference_length: Integers) -> Floats:
    """Return BLEU-1 to 4 (I, 4) of counts (I, 4) and lengths (I,), of images or of corpora."""
    precisions = (correct + _TINY) / (guessed + _SMALL)
    scores = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return scores * np.exp(np.minimum(0, 1 - 1 / ratio))[:, None]


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Floats:
    """Return ROUGE-L of each image (I,) (Lin 2004): best precision and best recall over the references, beta 1.2."""
    _check(candidates, references)
    scores = np.zeros(len(candidates))
    empty = ("",)  # a caption without tokens counts as one empty token, as in the reference code
    for image in range(len(candidates)):
        candidate, texts = candidates[image] or empty, [text or empty for text in references[image]]
        common = [common_subsequence_length(candidate, text) for text in texts]
        precision = max(common) / len(candidate)
        recall = max(length / len(text) for length, text in zip(common, texts, strict=True))
        if precision and recall:
            scores[image] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return scores


def common_subsequence_length(first: Tokens, second: Tokens) -> int:
    """Return the length of the longest common subsequence, computed with one bit per token of `first` (Hyyro 2004)."""
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << index
    all_bits = (1 << len(first)) - 1
    free = all_bits  # a bit is cleared when the subsequence grows
    for token in second:
        matches = free & positions.get(token, 0)
        free = (free + matches | free - matches) & all_bits
    return len(first) - free.bit_count()


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, plain: bool = False) -> Floats:
    """Return CIDEr of each image (I,), at most 10 (Vedantam et al. 2015); the corpus score is their mean.

    pycocoevalcap's "CIDEr", which papers report, is the paper's CIDEr-D: clipped counts and a length penalty. `plain` leaves
    out both (section 3). Document frequencies are those of these references.
    """
    _check(candidates, references)
    numbers = TokenNumbers()
    chunks = _chunks(len(candidates))

    def count_chunks() -> Iterator[_CountedCaptions]:
        return (_CountedCaptions.of(candidates[part], references[part], numbers) for part in chunks)

    kept = None
    if len(chunks) == 1:  # the tables of more chunks would fill the memory and are computed twice instead
        kept = [replace(part, tables=list(part.tables)) for part in count_chunks()]
    frequencies = _document_frequencies(kept or count_chunks())
    log_images = math.log(len(references))
    return np.concatenate([_cider(part, frequencies, log_images, plain=plain) for part in kept or count_chunks()])


class CiderScorer:
    """CIDEr with the document frequencies of given references, for candidates that come a few at a time."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """`references` are those of every image of the corpus."""
        _check([()] * len(references), references)
        self._numbers = TokenNumbers()
        parts = (
            _CountedCaptions.of([()] * len(references[part]), references[part], self._numbers)
            for part in _chunks(len(references))
        )
        self._frequencies = _document_frequencies(parts)
        self._log_images = math.log(len(references))

    def __call__(self, candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Floats:
        """Return CIDEr, as `cider` does, of each candidate against its references (I,)."""
        _check(candidates, references)
        return _cider(
            _CountedCaptions.of(candidates, references, self._numbers), self._frequencies, self._log_images, plain=False
        )


@dataclass(frozen=True, slots=True)
class _CountedCaptions:
    """The captions of consecutive images, each image's candidate before its references, and their n-grams."""

    image: Integers  # (C,)
    is_candidate: NDArray[np.bool_]  # (C,)
    lengths: Integers  # (C,) tokens
    tables: Iterable[NgramTable]  # one per order, computed one at a time

    @classmethod
    def of(cls, candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], numbers: TokenNumbers) -> _CountedCaptions:
        texts = [text for candidate, others in zip(candidates, references, strict=True) for text in (candidate, *others)]
        counts = np.fromiter(map(len, references), np.int64, len(references))
        image = np.repeat(np.arange(len(candidates)), counts + 1)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(image, np.diff(image, prepend=-1) > 0, lengths, count_ngrams(texts, image, numbers))


def _chunks(num_images: int) -> list[slice]:
    return [slice(first, first + _CHUNK) for first in range(0, num_images, _CHUNK)]


def _check(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but references of {len(references)} images; pass one candidate per image")
    if not all(references):
        raise ValueError("an image has no reference; leave it out")
    if not candidates:
        raise ValueError("there is no candidate to score; pass at least one")


def _correct(part: _CountedCaptions) -> Integers:
    """Return how many n-grams of each candidate its references contain, clipped: (I, 4)."""
    columns = []
    for table in part.tables:
        caption = table.caption[table.starts]  # (G,) the candidate, if it has the n-gram
        candidate_count = np.where(part.is_candidate[caption], table.count[table.starts], 0)
        clipped = np.minimum(candidate_count, _max_reference_count(part, table))
        columns.append(_sum_by_index(part.image[caption], clipped, part.image[-1] + 1))
    return np.stack(columns, axis=1).astype(np.int64)


def _max_reference_count(part: _CountedCaptions, table: NgramTable) -> Integers:
    """Return each image's n-gram count in the reference that has it most often: (G,)."""
    return np.maximum.reduceat(np.where(part.is_candidate[table.caption], 0, table.count), table.starts)


def _document_frequencies(parts: Iterable[_CountedCaptions]) -> list[tuple[Keys, Integers]]:
    """Return for each order the n-grams of all captions, and the number of images whose references have them."""
    orders: list[list[tuple[Keys, Integers]]] = [[] for _ in range(MAX_ORDER)]
    for part in parts:
        for order, table in enumerate(part.tables):
            ngram = table.ngram[table.starts[_max_reference_count(part, table) > 0]]
            orders[order].append((table.keys, np.bincount(ngram, minlength=len(table.keys))))
    return [_merge_counts(*map(np.concatenate, zip(*rows, strict=True))) if len(rows) > 1 else rows[0] for rows in orders]


def _merge_counts(key: Keys, count: Integers) -> tuple[Keys, Integers]:
    unique, index = np.unique(key, return_inverse=True)
    return unique, np.bincount(index, count, len(unique)).astype(np.int64)


def _counts_of(query: Keys, keys: Keys, counts: Integers) -> Integers:
    """Return the count of each key of the query, 0 if it is not among the keys, which are ascending."""
    if not len(keys):
        return np.zeros(len(query), np.int64)
    index = np.minimum(np.searchsorted(keys, query), len(keys) - 1)
    return np.where(keys[index] == query, counts[index], 0)


def _cider(part: _CountedCaptions, frequencies: list[tuple[Keys, Integers]], log_images: float, *, plain: bool) -> Floats:
    candidate_of = np.flatnonzero(part.is_candidate)[part.image]  # (C,) the candidate of each caption's image
    scores = np.zeros(len(candidate_of))  # of each caption against that candidate
    for table, (keys, frequency) in zip(part.tables, frequencies, strict=True):
        num_images = np.maximum(1, _counts_of(table.keys, keys, frequency))  # (U,) 0 counts as 1
        weight = table.count * (log_images - np.log(num_images))[table.ngram]  # (E,) tf-idf
        norm = np.sqrt(_sum_by_index(table.caption, weight**2, len(candidate_of)))
        # For each entry, the weight of the same n-gram in the candidate of its image, 0 if the candidate has none.
        group_weight = np.where(part.is_candidate[table.caption[table.starts]], weight[table.starts], 0.0)  # (G,)
        candidate_weight = np.repeat(group_weight, np.diff(table.starts, append=len(weight)))  # (E,)
        product = (candidate_weight if plain else np.minimum(candidate_weight, weight)) * weight
        dot = _sum_by_index(table.caption, product, len(candidate_of))
        scale = norm * norm[candidate_of]
        scores += np.divide(dot, scale, out=dot.copy(), where=scale != 0)
    if not plain:
        # The reference code uses the number of bigrams as the length: one less than the number of tokens.
        length = np.maximum(0, part.lengths - 1).astype(np.float64)
        scores *= np.exp(-((length - length[candidate_of]) ** 2) / (2 * _SIGMA**2))
    scores[part.is_candidate] = 0  # only the references count
    return 10 / MAX_ORDER * np.bincount(part.image, scores) / (np.bincount(part.image) - 1)


def _sum_by_index(index: Integers, values: Integers | Floats, size: int) -> Floats:
    """Return the sum of the values of each index below `size`."""
    return np.bincount(index, values, size).astype(np.float64)  # numpy returns integers if there are no values
