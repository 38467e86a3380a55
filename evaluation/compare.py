"""Several systems and the baselines beside them, on the same pictures and references, as one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from corpus import Example, matches_language
from evaluation.baselines import References, best_constant, human_captions, leave_one_out, nearest_captions, shuffled_images
from evaluation.captions import CaptionScores, score_captions
from evaluation.generate import prepared_batches
from evaluation.hallucination import Hallucination, Synonyms, invented_objects, own_synonyms
from evaluation.meteor import meteor
from evaluation.systems import CONSTANT, HUMAN, NEAREST, WRONG, System
from evaluation.tokens import tokens_of
from model import Captioner


@dataclass(slots=True)
class Row:
    """A system and what it scored."""

    system: System
    scores: CaptionScores
    invented: Hallucination | None = None  # where some pictures have boxes
    meteor: float | None = None
    told: str = ""  # what else there is to say

    def as_json(self) -> dict[str, Any]:
        """Return the figures, 1.0 = 100 in tables."""
        figures: dict[str, Any] = self.scores.as_json()
        if self.meteor is not None:
            figures["METEOR"] = self.meteor
        if self.invented is not None:
            figures |= self.invented.as_json()
        return figures | ({"caption": self.told} if self.told else {})


@dataclass(slots=True)
class Comparison:
    """Rows of systems, then of baselines; and the same against one reference less, a human beside them."""

    rows: list[Row] = field(default_factory=list)
    baselines: list[Row] = field(default_factory=list)
    left_out: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return everything but the scores of single images."""
        document: dict[str, Any] = {"systems": {row.system.name: row.as_json() for row in self.rows}}
        if self.baselines:
            document["baselines"] = {row.system.name: row.as_json() for row in self.baselines}
        if self.left_out:
            document["one reference left out"] = self.left_out
        return document

    def per_image(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return every image's caption and scores, by system and image id."""
        return {
            row.system.name: {
                image: {"caption": row.system.captions[image]}
                | {name: float(values[place]) for name, values in row.scores.per_image.items()}
                for place, image in enumerate(row.scores.images)
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
    neighbours: Captioner | None = None,
    humans: bool = False,
    with_meteor: bool = False,
    synonyms: Synonyms | None = None,
) -> Comparison:
    """Score systems that captioned the same examples, and what they must beat.

    `training` are examples that captions may be taken from; `neighbours` encodes pictures for the captions of those that
    look alike; `humans` adds the table in which a human's caption is scored against the others, and every row with it.
    """
    references = {example.image_id: list(example.references) for example in examples if example.references}
    learnt = [text for example in training for text in example.references]

    def scored(system: System, told: str = "") -> Row:
        scores = score_captions(system.captions, references, language=language, training=learnt)
        boxed = {
            example.image_id: [entry.name for entry in example.objects]
            for example in examples
            if example.objects and example.image_id in system.captions
        }
        words = synonyms or own_synonyms()
        has_classes = any(words.named(name) for names in boxed.values() for name in names)  # of COCO, not of other data
        invented = (
            invented_objects(system.captions, boxed, references, words)
            if has_classes and matches_language(language, "en")
            else None
        )
        row = Row(system, scores, invented, None, told)
        if with_meteor:
            known = [[tokens_of(text, language) for text in references[image]] for image in scores.images]
            row.meteor = meteor([tokens_of(system.captions[image], language) for image in scores.images], known)[0]
        return row

    found = Comparison([scored(system) for system in systems])
    if baselines:
        sentence, _ = best_constant(
            learnt or [text for texts in references.values() for text in texts], references, language=language
        )
        found.baselines.append(scored(System(CONSTANT, dict.fromkeys(references, sentence)), sentence))
        for system in systems[:1] if len(references) > 1 else ():
            found.baselines.append(scored(System(WRONG, shuffled_images(system.captions)), f"those of {system.name}"))
        if neighbours is not None and training:
            found.baselines.append(scored(_nearest(neighbours, examples, training, language)))
    if humans and any(len(texts) > 1 for texts in references.values()):
        found.left_out = _left_out([row.system for row in (*found.rows, *found.baselines)], references, language)
    return found


def _left_out(systems: Sequence[System], references: References, language: str) -> dict[str, dict[str, float]]:
    """Score all against all references but one, the mean over which is left out; a human is scored with the one left out."""

    def summary(candidates_of: Callable[[int], dict[str, str]]) -> dict[str, float]:
        rounds = leave_one_out(candidates_of, references, language=language)
        return {
            "CIDEr": mean(scores.cider for scores in rounds),
            "BLEU-4": mean(scores.bleu[3] for scores in rounds),
            "ROUGE-L": mean(scores.rouge_l for scores in rounds),
            "rounds": len(rounds),
        }

    found = {HUMAN: summary(human_captions(references))}
    for system in systems:
        found[system.name] = summary(lambda _, captions=system.captions: captions)  # type: ignore[misc]
    return found


def _nearest(captioner: Captioner, examples: Sequence[Example], training: Sequence[Example], language: str) -> System:
    captions = nearest_captions(
        mean_features(captioner, examples),
        mean_features(captioner, training),
        [example.references for example in training],
        language=language,
    )
    return System(NEAREST, dict(zip((example.image_id for example in examples), captions, strict=True)))


def mean_features(captioner: Captioner, examples: Sequence[Example]) -> Tensor:
    """Return the mean over each picture's cells of the encoder's features: (I, C)."""
    rows = []
    for views in prepared_batches(captioner, examples, "features"):
        features = captioner.runtime.encode(torch.stack([view.pixels for view in views]))
        rows.append(features.tokens[:, features.num_prefix_tokens :].mean(dim=1).float().cpu())
    return torch.cat(rows)
