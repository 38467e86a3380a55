"""Weak captions: for a photograph without captions, captions of other photographs that name the objects a detector sees in it.

A photograph and a caption are compared by the classes that are detected and named, each with its number (one, or several),
weighted by score, size and rarity. A caption that names a class which was not detected is never used.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation import Synonyms

Detection = tuple[float, float, float, float, str, float]  # x0, y0, x1, y1 as fractions of the image; class; score

_SEVERAL = re.compile(
    r"\b(?:two|three|four|five|six|several|many|group|bunch|crowd|herd|flock|couple|pair|lots|multiple|various)\b"
)
_PLURAL_PEOPLE = re.compile(
    r"\b(?:people|men|women|boys|girls|children|kids|persons|players|skiers|surfers|adults|guys|ladies)\b"
)
_MIN_SCORE = 0.3  # a weaker detection is no evidence for an object
_MAX_WEAKER = 0.15  # a class with a detection above it may be named


@dataclass(frozen=True, slots=True)
class Text:
    """A caption, and the classes it names, each with whether it names several."""

    caption: str
    image: str  # the photograph it was written for
    classes: dict[str, bool]


def parse_text(caption: str, image: str, synonyms: Synonyms) -> Text:
    """Return the caption with the classes that it names."""
    counts = Counter(synonyms.mentions(caption))
    lowered = caption.lower()
    several = bool(_SEVERAL.search(lowered))
    return Text(
        caption,
        image,
        {
            name: count > 1 or several or (name == "person" and bool(_PLURAL_PEOPLE.search(lowered))) or f"{name}s" in lowered
            for name, count in counts.items()
        },
    )


def class_weights(texts: Sequence[Text]) -> dict[str, float]:
    """Return the rarity of each class among the captions: ln((captions + 1) / captions that name it)."""
    counts = Counter(name for text in texts for name in text.classes)
    return {name: math.log((len(texts) + 1) / count) for name, count in counts.items()}


def shown_classes(detections: Sequence[Detection]) -> dict[str, tuple[float, int]]:
    """Return for each detected class its weight (score x fourth root of the area of its largest box) and the number of boxes."""
    weights: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for x0, y0, x1, y1, name, score in detections:
        if score >= _MIN_SCORE:
            weights[name] = max(weights[name], score * max(1e-4, (x1 - x0) * (y1 - y0)) ** 0.25)
        if score >= 0.4:
            counts[name] += 1
    return {name: (weight, max(1, counts[name])) for name, weight in weights.items()}


class WeakCaptions:
    """Finds captions for photographs among the captions of others."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self._rarity = class_weights(texts)
        self._with: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            for name in text.classes:
                self._with[name].append(number)

    def candidates(self, detections: Sequence[Detection], count: int) -> list[tuple[float, int]]:
        """Return (agreement 0..1, index of a text) of at most `count` captions, best first; [] if nothing is detected."""
        shown = shown_classes(detections)
        allowed = {name for *_, name, score in detections if score >= _MAX_WEAKER}
        value = {name: weight * self._rarity.get(name, 0.0) for name, (weight, _) in shown.items()}
        norm = math.sqrt(sum(v * v for v in value.values()))
        if not norm:
            return []
        scored = []
        for number in {number for name in shown for number in self._with[name]}:
            text = self._texts[number]
            if not allowed.issuperset(text.classes):
                continue
            overlap, length = 0.0, 0.0
            for name, several in text.classes.items():
                rarity = self._rarity[name]
                length += rarity * rarity
                if name in shown:
                    agrees = several == (shown[name][1] > 1)
                    overlap += value[name] * rarity * (1.0 if agrees else 0.75)
            scored.append((overlap / (norm * math.sqrt(length)) if length else 0.0, number))
        scored.sort(key=lambda entry: (-entry[0], entry[1]))
        return scored[:count]


def weak_captions(texts: Sequence[Text], ranked: Sequence[tuple[float, int]], images: int, per_image: int) -> list[str]:
    """Return at most `per_image` captions, of at most `images` different photographs."""
    kept: list[str] = []
    used: list[str] = []
    for _, number in ranked:
        text = texts[number]
        if text.image not in used and len(used) == images:
            continue
        used += [text.image] * (text.image not in used)
        kept += [text.caption] * (text.caption not in kept)
        if len(kept) == per_image:
            break
    return kept


def excluded(texts: Mapping[str, Sequence[str]], evaluation_ids: set[str]) -> dict[str, list[str]]:
    """Return captions by image without those of evaluation images; ids are compared as numbers."""
    numbers = {int(name) for name in evaluation_ids}
    return {name: list(captions) for name, captions in texts.items() if int(name) not in numbers}
