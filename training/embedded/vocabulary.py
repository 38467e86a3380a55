"""A tokenizer with more tokens: merges that are learned on top of its own, so that its tokens keep their ids and meaning."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

import tokenizers

from model import CaptionTokenizer

Pair = tuple[str, str]


def with_more_tokens(tokenizer: CaptionTokenizer, texts: Iterable[str], count: int) -> CaptionTokenizer:
    """Return a byte-level BPE with at most `count` more tokens, the most useful ones for `texts`.

    Byte pair encoding (Sennrich et al. 2016, section 3.2), continued from the merges that the tokenizer has. Texts that contain
    none of the new tokens are encoded as before.
    """
    inner = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    words: Counter[str] = Counter()
    for text in texts:
        normalized = inner.normalizer.normalize_str(text) if inner.normalizer else text
        words.update(piece for piece, _ in inner.pre_tokenizer.pre_tokenize_str(normalized))
    data = json.loads(tokenizer.to_json())
    vocabulary: dict[str, int] = data["model"]["vocab"]
    merges: list[list[str]] = data["model"]["merges"]
    size = tokenizer.size
    for left, right in _learn(
        [[token.value for token in inner.model.tokenize(word)] for word in words], list(words.values()), count
    ):
        merges.append([left, right])
        if left + right not in vocabulary:
            vocabulary[left + right] = size
            size += 1
    return CaptionTokenizer.from_json(json.dumps(data))


def spelled_by(old: CaptionTokenizer, new: CaptionTokenizer) -> dict[int, list[int]]:
    """Return for each token that `new` has more than `old` the old tokens that spell it; special tokens are left out."""
    inner = tokenizers.Tokenizer.from_str(old.to_json())
    vocabulary: dict[str, int] = json.loads(new.to_json())["model"]["vocab"]
    return {
        index: [token.id for token in inner.model.tokenize(piece)] for piece, index in vocabulary.items() if index >= old.size
    }


def _learn(words: list[list[str]], counts: list[int], steps: int) -> list[Pair]:
    """Return the merges of the most frequent pairs, one after another; ties are broken by the pair's spelling."""
    totals: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        for pair in pairwise(word):
            totals[pair] += counts[number]
            where[pair].add(number)
    merges: list[Pair] = []
    while len(merges) < steps and totals:
        best = max(totals, key=lambda pair: (totals[pair], pair))
        if totals[best] < 2:
            break
        merges.append(best)
        for number in list(where[best]):
            for pair in pairwise(words[number]):
                totals[pair] -= counts[number]
                where[pair].discard(number)
            words[number] = _merged(words[number], best)
            for pair in pairwise(words[number]):
                totals[pair] += counts[number]
                where[pair].add(number)
        totals = +totals
    return merges


def _merged(word: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
