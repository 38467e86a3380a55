"""What a hypothesis answers: one caption, that of a region, or a caption for every phrase that it locates."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from model.captions import Caption, without_outer_spaces
from model.config import ModelConfig
from model.located import LocatedPhrase, located_phrases
from model.prompts import task_of
from model.requests import CaptionRequest
from model.scoring import ScoredCaption
from model.search import Hypothesis
from model.tasks import Output
from model.tokenizer import CaptionTokenizer


class Build(Protocol):
    """Makes a caption of a scored hypothesis, whose text begins with `verbatim_text`; by default with the request's prompt."""

    def __call__(self, hypothesis: Hypothesis, scored: ScoredCaption, *, verbatim_text: str = ...) -> Caption: ...


def output_of(config: ModelConfig, request: CaptionRequest) -> Output:
    """Return what a request's task gives: a text, or texts with coordinates. Raises ConfigError."""
    task = task_of(config, request)
    return "text" if task is None else task.output


def answers(
    config: ModelConfig,
    tokenizer: CaptionTokenizer,
    request: CaptionRequest,
    hypothesis: Hypothesis,
    scored: ScoredCaption,
    build: Build,
) -> list[Caption]:
    """Return the caption that `build` makes of a scored hypothesis, or one for each phrase and its region."""
    output = output_of(config, request)
    if output == "text" or request.options is None or config.prompt_encoder is None:
        caption = build(hypothesis, scored)
        if request.region is None or request.view is None:
            return [caption]
        return [dataclasses.replace(caption, region=request.region, covers=request.view.covers)]
    assert request.view is not None, "coordinates are those of an image"
    phrases = located_phrases(hypothesis.tokens, tokenizer.special_ids, config.prompt_encoder, output, request.view.source_size)
    return [_phrase(phrase, hypothesis, scored, build) for phrase in phrases]


def _phrase(phrase: LocatedPhrase, hypothesis: Hypothesis, scored: ScoredCaption, build: Build) -> Caption:
    tokens = slice(phrase.start, phrase.end)
    part = Hypothesis(hypothesis.tokens[tokens], 0.0, is_finished=True)
    own = scored.part(phrase.start, phrase.end)
    built = (
        build(part, own) if phrase.start == 0 else build(part, own, verbatim_text="")
    )  # the prompt is that of the first phrase
    caption = without_outer_spaces(built)
    named = (*scored.log_probs[tokens], *scored.log_probs[phrase.stop - phrase.count : phrase.stop])
    return dataclasses.replace(
        caption, log_probability=sum(named), num_tokens=len(named), region=phrase.region, polygon=phrase.polygon
    )
