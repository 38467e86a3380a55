"""What a captioner must beat: one sentence for every picture, its own captions on wrong pictures, the captions of pictures
that look alike; and what it may hope for: a human against the others.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from evaluation.captions import CaptionScores, score_captions
from evaluation.tokens import tokens_of

References = dict[str, list[str]]

NEIGHBOURS = 20  # pictures whose captions are looked through for the one most like the others
_SHORTLIST = 20  # sentences that are scored exactly
_ROWS = 256  # pictures compared at once


def best_constant(candidates: Iterable[str], references: References, *, language: str = "en") -> tuple[str, CaptionScores]:
    """Return the sentence among `candidates` that scores the highest CIDEr when it is said of every image.

    Each is first judged by its mean tf-idf similarity to all references (CIDEr without its clipping and its penalty on
    length); the best of those are scored exactly. It is chosen on the references themselves: an upper bound.
    """
    known = [[tokens_of(text, language) for text in texts] for texts in references.values()]
    frequency = _frequency(known)
    mean: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for texts in known:
        for text in texts:
            for ngram, value in _vector(text, frequency, len(known)).items():
                mean[ngram] += value
    told = {tuple(tokens_of(text, language)): text for text in sorted(candidates, reverse=True)}  # one spelling of each
    judged = {
        text: sum(value * mean[ngram] for ngram, value in _vector(tokens, frequency, len(known)).items())
        for tokens, text in told.items()
    }
    shortlist = sorted(judged, key=lambda text: (-judged[text], text))[:_SHORTLIST]
    rough = {
        text: score_captions(dict.fromkeys(references, text), references, language=language, resamples=0) for text in shortlist
    }
    best = max(rough, key=lambda text: rough[text].cider)
    return best, score_captions(dict.fromkeys(references, best), references, language=language)


def shuffled_images(captions: dict[str, str], seed: int = 0) -> dict[str, str]:
    """Return the same captions on other images: what they score is what is left when the picture does not matter."""
    if len(captions) < 2:
        raise ValueError("there is one picture; its caption cannot be on a wrong one")
    images = sorted(captions)
    random.Random(seed).shuffle(images)
    # Each is given the next one's, in a circle: none keeps its own.
    return {image: captions[other] for image, other in zip(images, [*images[1:], images[0]], strict=True)}


def leave_one_out(
    candidates_of: Callable[[int], dict[str, str]], references: References, *, language: str = "en"
) -> list[CaptionScores]:
    """Score against all references but one, the k-th left out in round k; `candidates_of(k)` are the captions of that round.

    There are as many rounds as the image with the fewest references has, images with a single one not counted.

    With the k-th reference itself as candidate that is a human against the others; a system that is compared with it has
    to be scored so as well, for scores rise with the number of references.
    """
    rounds = min((len(texts) for texts in references.values() if len(texts) > 1), default=0)
    scores = []
    for out in range(rounds):
        others = {image: texts[:out] + texts[out + 1 :] for image, texts in references.items() if len(texts) > 1}
        candidates = candidates_of(out)
        chosen = {image: candidates[image] for image in others}
        scores.append(score_captions(chosen, others, language=language, resamples=0))
    return scores


def human_captions(references: References) -> Callable[[int], dict[str, str]]:
    """Return the k-th human caption of every image, for leave_one_out."""
    return lambda out: {image: texts[out] for image, texts in references.items() if len(texts) > out}


def nearest_captions(
    features: Tensor, train_features: Tensor, train_captions: Sequence[Sequence[str]], *, language: str = "en"
) -> list[str]:
    """Return for each picture the most usual caption among those of the training pictures that look most like it.

    features (I, C) and train_features (N, C); alike is a large cosine. Of all captions of the 20 nearest the one with the
    largest mean tf-idf similarity to the others is taken (Devlin et al. 2015, section 3.2).
    """
    known = [[tokens_of(text, language) for text in texts] for texts in train_captions]
    frequency = _frequency(known)
    vectors = [[_vector(text, frequency, len(known)) for text in texts] for texts in known]
    train = torch.nn.functional.normalize(train_features.float(), dim=1)
    captions: list[str] = []
    for rows in torch.nn.functional.normalize(features.float(), dim=1).split(_ROWS):
        nearest = (rows @ train.T).topk(min(NEIGHBOURS, len(train)), dim=1).indices  # (rows, 20)
        captions += [_consensus(indices, train_captions, vectors) for indices in nearest.tolist()]
    return captions


def _consensus(
    pictures: Sequence[int], captions: Sequence[Sequence[str]], vectors: Sequence[Sequence[dict[tuple[str, ...], float]]]
) -> str:
    pool = [(text, vector) for picture in pictures for text, vector in zip(captions[picture], vectors[picture], strict=True)]
    mean: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for _, vector in pool:
        for ngram, value in vector.items():
            mean[ngram] += value
    return max(pool, key=lambda entry: sum(value * (mean[ngram] - value) for ngram, value in entry[1].items()))[0]


def _frequency(known: Sequence[Sequence[Sequence[str]]]) -> Counter[tuple[str, ...]]:
    """Return in how many pictures each n-gram occurs."""
    frequency: Counter[tuple[str, ...]] = Counter()
    for texts in known:
        frequency.update({ngram for text in texts for ngram in _ngrams(text)})
    return frequency


def _ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + size]) for size in range(1, 5) for at in range(len(tokens) - size + 1))


def _vector(tokens: Sequence[str], frequency: Counter[tuple[str, ...]], pictures: int) -> dict[tuple[str, ...], float]:
    """Return tf-idf by n-gram, each order normalised to length 1 (Vedantam et al. 2015, section 3)."""
    vector = {ngram: count * math.log(pictures / max(1, frequency[ngram])) for ngram, count in _ngrams(tokens).items()}
    norms: defaultdict[int, float] = defaultdict(float)
    for ngram, value in vector.items():
        norms[len(ngram)] += value * value
    return {ngram: value / math.sqrt(norms[len(ngram)]) for ngram, value in vector.items() if norms[len(ngram)] > 0}
