"""Comparison of several systems and baselines on the same images and references, as one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from corpus import Example, matches_language
from evaluation.baselines import (
    References,
    best_constant_caption,
    human_captions,
    leave_one_out,
    nearest_captions,
    shuffled_images,
)
from evaluation.generation import prepared_batches
from evaluation.hallucination import Hallucination, Synonyms, coco_synonyms, count_hallucinations
from evaluation.meteor import meteor
from evaluation.scores import CaptionScores, score_captions
from evaluation.systems import CONSTANT, HUMAN, NEAREST, SHUFFLED, System
from evaluation.tokens import tokenize_caption
from model import Captioner


@dataclass(slots=True)
class SystemScores:
    """A system and its scores, one row of the table."""

    system: System
    scores: CaptionScores
    hallucination: Hallucination | None = None  # if some images have boxes
    meteor: float | None = None
    note: str = ""  # of a baseline: its caption, or the system that it is made from

    def as_json(self) -> dict[str, Any]:
        """Return the scores; 1.0 is 100 in tables."""
        figures: dict[str, Any] = self.scores.as_json()
        if self.meteor is not None:
            figures["METEOR"] = self.meteor
        if self.hallucination is not None:
            figures |= self.hallucination.as_json()
        return figures | ({"caption": self.note} if self.note else {})


@dataclass(slots=True)
class Comparison:
    """Scores of systems and of baselines; and the same, with a human, against all references but one."""

    rows: list[SystemScores] = field(default_factory=list)
    baselines: list[SystemScores] = field(default_factory=list)
    leave_one_out: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return all scores but those of single images."""
        document: dict[str, Any] = {"systems": {row.system.name: row.as_json() for row in self.rows}}
        if self.baselines:
            document["baselines"] = {row.system.name: row.as_json() for row in self.baselines}
        if self.leave_one_out:
            document["leave_one_out"] = self.leave_one_out
        return document

    def per_image(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return every image's caption and scores, by system and image id."""
        return {
            row.system.name: {
                image: {"caption": row.system.captions[image]}
                | {name: float(values[index]) for name, values in row.scores.per_image.items()}
                for index, image in enumerate(row.scores.images)
            }
            for row in self.rows
        }


def compare(
    systems: Sequence[System],
    examples: Sequence[Example],
    training: Sequence[Example] = (),
    *,
    language: str = "en",
    baselines: bool = True,
    neighbor_encoder: Captioner | None = None,
    humans: bool = False,
    with_meteor: bool = False,
    synonyms: Synonyms | None = None,
) -> Comparison:
    """Score systems that captioned the same examples, and baselines.

    `training` are the examples whose captions baselines may use. `neighbor_encoder` encodes images for the baseline of nearest
    images. `humans` adds the leave-one-out table, in which a human's caption and every system are scored against the other
    references. Raises DataError if METEOR is requested and cannot be computed.
    """
    references = {example.image_id: list(example.references) for example in examples if example.references}
    training_captions = [text for example in training for text in example.references]

    def score(system: System, note: str = "") -> SystemScores:
        scores = score_captions(system.captions, references, language=language, training=training_captions)
        boxed = {
            example.image_id: [entry.name for entry in example.objects]
            for example in examples
            if example.objects and example.image_id in system.captions
        }
        class_words = synonyms or coco_synonyms()
        has_coco_classes = any(class_words.mentions(name) for names in boxed.values() for name in names)
        hallucination = (
            count_hallucinations(system.captions, boxed, references, class_words)
            if has_coco_classes and matches_language(language, "en")
            else None
        )
        row = SystemScores(system, scores, hallucination, None, note)
        if with_meteor:
            tokens = [tokenize_caption(system.captions[image], language) for image in scores.images]
            reference_tokens = [[tokenize_caption(text, language) for text in references[image]] for image in scores.images]
            row.meteor, _ = meteor(tokens, reference_tokens)
        return row

    comparison = Comparison([score(system) for system in systems])
    if baselines:
        sentence, _ = best_constant_caption(
            training_captions or [text for texts in references.values() for text in texts], references, language=language
        )
        comparison.baselines.append(score(System(CONSTANT, dict.fromkeys(references, sentence)), sentence))
        for system in systems[:1] if len(references) > 1 else ():
            comparison.baselines.append(score(System(SHUFFLED, shuffled_images(system.captions)), f"captions of {system.name}"))
        if neighbor_encoder is not None and training:
            comparison.baselines.append(score(_nearest(neighbor_encoder, examples, training, language)))
    if humans and any(len(texts) > 1 for texts in references.values()):
        scored = [row.system for row in (*comparison.rows, *comparison.baselines)]
        comparison.leave_one_out = _leave_one_out_table(scored, references, language)
    return comparison


def _leave_one_out_table(systems: Sequence[System], references: References, language: str) -> dict[str, dict[str, float]]:
    """Return mean scores over the rounds of leave_one_out; the caption of the human is the reference that is left out."""

    def summary(candidates_of: Callable[[int], dict[str, str]]) -> dict[str, float]:
        rounds = leave_one_out(candidates_of, references, language=language)
        return {
            "CIDEr": mean(scores.cider for scores in rounds),
            "BLEU-4": mean(scores.bleu[3] for scores in rounds),
            "ROUGE-L": mean(scores.rouge_l for scores in rounds),
            "rounds": len(rounds),
        }

    table = {HUMAN: summary(human_captions(references))}
    for system in systems:
        table[system.name] = summary(lambda _, captions=system.captions: captions)  # type: ignore[misc]
    return table


def _nearest(captioner: Captioner, examples: Sequence[Example], training: Sequence[Example], language: str) -> System:
    captions = nearest_captions(
        mean_features(captioner, examples),
        mean_features(captioner, training),
        [example.references for example in training],
        language=language,
    )
    return System(NEAREST, dict(zip((example.image_id for example in examples), captions, strict=True)))


def mean_features(captioner: Captioner, examples: Sequence[Example]) -> Tensor:
    """Return the mean of the encoder's features over the patches of each image: (I, C), float32 on the CPU."""
    rows = []
    for views in prepared_batches(captioner, examples, "features"):
        features = captioner.runtime.encode(torch.stack([view.pixels for view in views]))
        rows.append(features.tokens[:, features.num_prefix_tokens :].mean(dim=1).float().cpu())
    return torch.cat(rows)
