"""The command `python -m evaluation calibrate`: the confidence of a checkpoint, fitted on one split and judged on another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import DataError, Example, read_data
from evaluation.abstract_images import abstract_images
from evaluation.calibration import (
    acceptable_captions,
    fit_logistic,
    fit_words,
    judged_words,
    reliability,
)
from evaluation.generation import png_bytes, prepared_batches
from evaluation.hallucination import coco_synonyms
from model import (
    Caption,
    Captioner,
    ConfidenceConfig,
    caption_features,
    logistic,
    read_config,
    word_confidences,
    word_features,
    write_config,
)

ABSTRACT_IMAGES = 60  # that the confidence is compared on: no caption of them is acceptable
ABSTRACT_SHARE = 0.05  # of the images of the fit that are added as such images; more would lower the confidence of photographs


@dataclass(frozen=True, slots=True)
class Cases:
    """Features and verdicts of captions, and of those of their words that are judged."""

    captions: list[list[float]]
    acceptable: list[bool]
    words: list[list[float]]
    texts: list[str]  # of the words, in lower case
    right: list[bool]
    is_object: list[bool]


def calibrate(captioner: Captioner, fit: Sequence[Example], test: Sequence[Example]) -> tuple[ConfidenceConfig, dict[str, Any]]:
    """Return the weights fitted on the images of `fit`, and how they do on those of `test`; both have five references each."""
    fitted, threshold = _cases(captioner, fit, None)
    others = best_captions(captioner, [png_bytes(image) for image in abstract_images(max(1, round(ABSTRACT_SHARE * len(fit))))])
    no_captions = [_features(caption) for caption in others if caption.words]
    caption_weights = fit_logistic(
        fitted.captions + [whole for whole, _ in no_captions], fitted.acceptable + [False] * len(no_captions)
    )
    wrong = [features for _, words in no_captions for features in words]
    word_weights, offsets = fit_words(  # the words of such images say nothing about how reliable the same words are elsewhere
        fitted.words + wrong, fitted.texts + [""] * len(wrong), fitted.right + [False] * len(wrong)
    )
    weights = ConfidenceConfig(caption=caption_weights, word=word_weights, word_offsets=offsets)
    judged, _ = _cases(captioner, test, threshold)
    confidences = [logistic(weights.caption, features) for features in judged.captions]
    confidences_of_words = word_confidences(weights.word, weights.word_offsets, judged.texts, judged.words)
    objects = [number for number, named in enumerate(judged.is_object) if named]
    unseen = best_captions(captioner, [png_bytes(image) for image in abstract_images(ABSTRACT_IMAGES, seed=1)])
    figures: dict[str, Any] = {
        "threshold_cider": threshold,
        "captions": reliability(confidences, judged.acceptable).as_json(),
        "words": reliability(confidences_of_words, judged.right).as_json(),
        "object_words": _part(confidences_of_words, judged.right, objects),
        "median_confidence": sorted(confidences)[len(confidences) // 2],
        "abstract_images_above_median": _share_above(weights, unseen, sorted(confidences)[len(confidences) // 2]),
    }
    return weights, figures


def run_calibrate(options: Any, captioner: Captioner, folder: Path) -> dict[str, Any]:
    """Fit on the val split of --data and judge on its test split; with --write the weights are stored in the checkpoint."""
    splits: dict[str, list[Example]] = {"val": [], "test": []}
    for example in read_data(options.data, language="en"):
        if example.split in splits and len(example.references) >= 5:
            splits[example.split].append(example)
    for name, examples in splits.items():
        if len(examples) < 2:
            raise DataError(
                f"{options.data!r} has {len(examples)} images with five references in split {name}; calibration needs more"
            )
    limited = {name: examples[: options.images] if options.images else examples for name, examples in splits.items()}
    weights, figures = calibrate(captioner, limited["val"], limited["test"])
    if options.write:
        write_config(folder, dataclasses.replace(read_config(folder), confidence=weights))
    return figures | {"weights": dataclasses.asdict(weights)}


def best_captions(captioner: Captioner, images: Sequence[bytes | Example]) -> list[Caption]:
    """Return the best caption of each image, with reliance."""
    return [
        result.captions[0]
        for views in prepared_batches(captioner, images, "captions")
        for result in captioner.caption(views, maps="none")
    ]


def _cases(captioner: Captioner, examples: Sequence[Example], threshold: float | None) -> tuple[Cases, float]:
    captions = best_captions(captioner, examples)
    references = [example.references for example in examples]
    acceptable, limit = acceptable_captions([caption.text for caption in captions], references, threshold=threshold)
    cases, synonyms = Cases([], [], [], [], [], []), coco_synonyms()
    for caption, example, verdict in zip(captions, examples, acceptable, strict=True):
        if not caption.words:
            continue
        whole, words = _features(caption)
        cases.captions.append(whole)
        cases.acceptable.append(verdict)
        objects = [entry.name for entry in example.objects]
        verdicts = judged_words(caption, example.references, objects, synonyms)
        for word, features, is_right in zip(caption.words, words, verdicts, strict=True):
            if is_right is not None:
                cases.words.append(features)
                cases.texts.append(word.text.lower())
                cases.right.append(is_right)
                cases.is_object.append(bool(synonyms.mentions(word.text)))
    return cases, limit


def _features(caption: Caption) -> tuple[list[float], list[list[float]]]:
    log_probs = [word.log_probability for word in caption.words]
    reliances = [word.image_reliance or 0.0 for word in caption.words]
    return caption_features(log_probs, reliances), word_features(log_probs, reliances)


def _part(confidence: Sequence[float], right: Sequence[bool], numbers: Sequence[int]) -> dict[str, float | int] | None:
    """Return the figures of some cases, None if all of them are right or all are wrong."""
    own = [right[number] for number in numbers]
    return reliability([confidence[number] for number in numbers], own).as_json() if len(set(own)) == 2 else None


def _share_above(weights: ConfidenceConfig, captions: Sequence[Caption], limit: float) -> float:
    """Return the share of captions with a confidence above `limit`."""
    values = [logistic(weights.caption, _features(caption)[0]) for caption in captions if caption.words]
    return sum(value > limit for value in values) / max(1, len(values))
