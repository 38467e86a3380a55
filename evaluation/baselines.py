"""What a captioner must beat: the best single sentence for every picture, and its own captions on the wrong pictures."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

from evaluation.captions import CaptionScores, score_captions, tokenised

_SHORTLIST = 20  # sentences that are scored exactly


def best_constant(candidates: Iterable[str], references: dict[str, list[str]]) -> tuple[str, CaptionScores]:
    """Return the sentence among `candidates` that scores the highest CIDEr when it is said of every image.

    Each is first judged by its mean tf-idf similarity to all references (CIDEr without its clipping and its penalty on
    length); the best of those are scored exactly. It is chosen on the references themselves: an upper bound.
    """
    frequency: Counter[tuple[str, ...]] = Counter()
    for texts in references.values():
        frequency.update({ngram for text in texts for ngram in _ngrams(text)})
    mean: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for texts in references.values():
        for text in texts:
            vector = _vector(text, frequency, len(references))
            for ngram, value in vector.items():
                mean[ngram] += value
    judged = {
        text: sum(value * mean[ngram] for ngram, value in _vector(text, frequency, len(references)).items())
        for text in set(map(tokenised, candidates))
    }
    shortlist = sorted(judged, key=lambda text: (-judged[text], text))[:_SHORTLIST]
    scored = [(text, score_captions(dict.fromkeys(references, text), references)) for text in shortlist]
    return max(scored, key=lambda entry: entry[1].cider)


def wrong_pictures(captions: dict[str, str], references: dict[str, list[str]], seed: int = 0) -> CaptionScores:
    """Score captions against the references of other images: what is left when the picture does not matter."""
    images = sorted(captions)
    shifted = images[:]
    random.Random(seed).shuffle(shifted)
    return score_captions(dict(zip(images, (captions[image] for image in shifted), strict=True)), references)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = tokenised(text).split()
    return Counter(tuple(words[at : at + size]) for size in range(1, 5) for at in range(len(words) - size + 1))


def _vector(text: str, frequency: Counter[tuple[str, ...]], images: int) -> dict[tuple[str, ...], float]:
    """Return tf-idf by n-gram, each order normalised to length 1 (Vedantam et al. 2015, section 3)."""
    counts = _ngrams(text)
    vector = {ngram: count * math.log(images / max(1, frequency[ngram])) for ngram, count in counts.items()}
    norms: defaultdict[int, float] = defaultdict(float)
    for ngram, value in vector.items():
        norms[len(ngram)] += value * value
    return {ngram: value / math.sqrt(norms[len(ngram)]) for ngram, value in vector.items() if norms[len(ngram)] > 0}
