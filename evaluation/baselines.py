"""Baselines of captioners: the best constant caption, shuffled captions, captions of the nearest images; and human agreement."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from evaluation.scores import CaptionScores, score_captions
from evaluation.tokens import tokenize_caption

References = dict[str, list[str]]

NUM_NEIGHBORS = 20  # training images whose captions are candidates
_SHORTLIST = 20  # sentences that are scored exactly
_BATCH_SIZE = 256  # images compared at once


def best_constant_caption(
    candidates: Iterable[str], references: References, *, language: str = "en"
) -> tuple[str, CaptionScores]:
    """Return the candidate with the highest CIDEr if it is the caption of every image, and its scores.

    Candidates are ranked by their mean tf-idf similarity to all references (CIDEr without clipping and length penalty); the best
    20 are scored exactly. The choice uses the references that it is scored on, so the score is an upper bound.
    """
    tokens_of = [[tokenize_caption(text, language) for text in texts] for texts in references.values()]
    frequency = _document_frequency(tokens_of)
    mean: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for texts in tokens_of:
        for text in texts:
            for ngram, value in _tf_idf(text, frequency, len(tokens_of)).items():
                mean[ngram] += value
    spelling = {tuple(tokenize_caption(text, language)): text for text in sorted(candidates, reverse=True)}  # one per token list
    similarity = {
        text: sum(value * mean[ngram] for ngram, value in _tf_idf(tokens, frequency, len(tokens_of)).items())
        for tokens, text in spelling.items()
    }
    shortlist = sorted(similarity, key=lambda text: (-similarity[text], text))[:_SHORTLIST]
    exact = {
        text: score_captions(dict.fromkeys(references, text), references, language=language, resamples=0) for text in shortlist
    }
    best = max(exact, key=lambda text: exact[text].cider)
    return best, score_captions(dict.fromkeys(references, best), references, language=language)


def shuffled_images(captions: dict[str, str], seed: int = 0) -> dict[str, str]:
    """Return the same captions assigned to other images: their score does not depend on what the images show.

    Raises ValueError if there are fewer than two captions.
    """
    if len(captions) < 2:
        raise ValueError(f"{len(captions)} captions cannot be assigned to other images; pass at least 2")
    images = sorted(captions)
    random.Random(seed).shuffle(images)
    # Each image gets the caption of the next one, the last one that of the first: no image keeps its caption.
    return {image: captions[other] for image, other in zip(images, [*images[1:], images[0]], strict=True)}


def leave_one_out(
    candidates_of: Callable[[int], dict[str, str]], references: References, *, language: str = "en"
) -> list[CaptionScores]:
    """Score against all references but the k-th in round k; `candidates_of(k)` are the captions of that round.

    The number of rounds is the smallest number of references of an image; images with one reference are left out.

    If the candidate is the k-th reference, this is the score of a human against the others. A system that is compared with it
    must be scored the same way, because scores increase with the number of references.
    """
    rounds = min((len(texts) for texts in references.values() if len(texts) > 1), default=0)
    scores = []
    for index in range(rounds):
        others = {image: texts[:index] + texts[index + 1 :] for image, texts in references.items() if len(texts) > 1}
        candidates = candidates_of(index)
        scored = {image: candidates[image] for image in others}
        scores.append(score_captions(scored, others, language=language, resamples=0))
    return scores


def human_captions(references: References) -> Callable[[int], dict[str, str]]:
    """Return the k-th human caption of every image, for leave_one_out."""
    return lambda index: {image: texts[index] for image, texts in references.items() if len(texts) > index}


def nearest_captions(
    features: Tensor, train_features: Tensor, train_captions: Sequence[Sequence[str]], *, language: str = "en"
) -> list[str]:
    """Return for each image the consensus caption of its nearest training images.

    features (I, C) and train_features (N, C); nearest by cosine. Of all captions of the 20 nearest images, the consensus is the
    one with the largest mean tf-idf similarity to the others (Devlin et al. 2015, section 3.2).
    """
    tokens_of = [[tokenize_caption(text, language) for text in texts] for texts in train_captions]
    frequency = _document_frequency(tokens_of)
    vectors = [[_tf_idf(text, frequency, len(tokens_of)) for text in texts] for texts in tokens_of]
    train = torch.nn.functional.normalize(train_features.float(), dim=1)
    captions: list[str] = []
    for rows in torch.nn.functional.normalize(features.float(), dim=1).split(_BATCH_SIZE):
        nearest = (rows @ train.T).topk(min(NUM_NEIGHBORS, len(train)), dim=1).indices  # (rows, 20)
        captions += [_consensus(indices, train_captions, vectors) for indices in nearest.tolist()]
    return captions


def _consensus(
    images: Sequence[int], captions: Sequence[Sequence[str]], vectors: Sequence[Sequence[dict[tuple[str, ...], float]]]
) -> str:
    pool = [(text, vector) for image in images for text, vector in zip(captions[image], vectors[image], strict=True)]
    mean: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for _, vector in pool:
        for ngram, value in vector.items():
            mean[ngram] += value
    return max(pool, key=lambda entry: sum(value * (mean[ngram] - value) for ngram, value in entry[1].items()))[0]


def _document_frequency(tokens_of: Sequence[Sequence[Sequence[str]]]) -> Counter[tuple[str, ...]]:
    """Return the number of images whose captions have each n-gram."""
    frequency: Counter[tuple[str, ...]] = Counter()
    for texts in tokens_of:
        frequency.update({ngram for text in texts for ngram in _ngrams(text)})
    return frequency


def _ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + size]) for size in range(1, 5) for start in range(len(tokens) - size + 1))


def _tf_idf(tokens: Sequence[str], frequency: Counter[tuple[str, ...]], num_images: int) -> dict[tuple[str, ...], float]:
    """Return tf-idf by n-gram, each order normalized to length 1 (Vedantam et al. 2015, section 3)."""
    vector = {ngram: count * math.log(num_images / max(1, frequency[ngram])) for ngram, count in _ngrams(tokens).items()}
    norms: defaultdict[int, float] = defaultdict(float)
    for ngram, value in vector.items():
        norms[len(ngram)] += value * value
    return {ngram: value / math.sqrt(norms[len(ngram)]) for ngram, value in vector.items() if norms[len(ngram)] > 0}
