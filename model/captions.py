"""What a captioner returns: captions, their words with maps and figures; and how they are built from scored tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.confidence import caption_features, logistic, word_confidences, word_features
from model.config import ConfidenceConfig
from model.geometry import Box, ImageView, PatchGrid
from model.maps import MapMethod, WordMap, inside, peak_box, word_map
from model.options import Style
from model.scoring import ScoredCaption
from model.search import Hypothesis
from model.style import as_sentence, moved, plain_form
from model.tokenizer import CaptionTokenizer


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a caption: caption.text[start:end]. Map and box are None if no maps were requested."""

    text: str
    start: int  # code points
    end: int
    log_probability: float  # nats, given the words before it and the image
    image_reliance: float | None  # nats lost if the image is replaced by "no image"
    map: WordMap | None
    box: tuple[int, int, int, int] | None  # pixels of the image, around the map's peak
    confidence: float | None = None  # that the image shows it; None if the checkpoint is not calibrated
    before: str = ""  # what the caption has between the previous word and this one

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence, its words, and how probable it is; log_probability includes the end token if there is one."""

    text: str
    words: tuple[Word, ...]
    log_probability: float
    finish_reason: str  # "stop"; "length": a limit of words or tokens ended it; "uncertain": no text reaches min_confidence
    confidence: float | None = None  # that it is as good as a person's; None if the checkpoint is not calibrated
    num_tokens: int = 0  # the end token counted
    region: Box | None = None  # the part of the image that it describes, pixels of the upright image; None: all of it
    polygon: tuple[int, ...] = ()  # the corners x0, y0, x1, y1, … of a region that is no rectangle
    covers: Box | None = None  # what the patches of its maps tile, where that is not what the image's view covers: a crop

    @property
    def after(self) -> str:
        """What follows the last word: a full stop, or nothing."""
        return self.text[self.words[-1].end :] if self.words else self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Milliseconds by part. Images that were computed together share the times of their calls."""

    decode_image_ms: float = 0.0
    queue_ms: float = 0.0
    encode_ms: float = 0.0
    decode_ms: float = 0.0
    maps_ms: float = 0.0

    def as_dict(self) -> dict[str, float]:
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """The captions of one image, best first."""

    captions: tuple[Caption, ...]  # empty if a task that locates things has no result
    grid: PatchGrid
    timing: Timing

    @property
    def best(self) -> Caption:
        """The first caption, or an empty one."""
        return self.captions[0] if self.captions else Caption("", (), 0.0, "stop")


def build_caption(
    tokenizer: CaptionTokenizer,
    hypothesis: Hypothesis,
    scored: ScoredCaption,
    *,
    verbatim_text: str,
    is_full_caption: bool,
    style: Style,
    confidence: ConfidenceConfig | None,
    view: ImageView | None,
    grid: PatchGrid,
    method: MapMethod | None,
    box_threshold: float,
) -> Caption:
    """Return the caption of a scored hypothesis.

    `verbatim_text` is text that a person wrote and that stays as written: the caption's beginning, or the whole of it. The
    rest has the `style`. `confidence` is None if the checkpoint's does not apply.
    """
    plain, offsets = _text(tokenizer, hypothesis.tokens, verbatim_text, is_full_caption, style)
    text, moves = plain, list(range(len(plain) + 1))
    if style == "sentence" and not is_full_caption:
        text, moves = as_sentence(plain, start=len(verbatim_text), is_finished=hypothesis.is_finished)
    words: list[Word] = []
    for span in tokenizer.words(hypothesis.tokens):
        start, end = moved(moves, offsets[span.start], offsets[span.end - 1] + 1)
        log_prob = sum(scored.log_probs[token] for token in span.tokens)
        reliance = None
        if scored.unconditional_log_probs:
            reliance = log_prob - sum(scored.unconditional_log_probs[token] for token in span.tokens)
        own_map, box = None, None
        if scored.token_maps is not None and method is not None and view is not None:
            shares = [scored.prompt_shares[token] for token in span.tokens] if scored.prompt_shares else None
            own_map = word_map(
                scored.token_maps[list(span.tokens)], is_attention_share=method.is_attention_share, prompt_shares=shares
            )
            box = inside(peak_box(own_map.values, grid, view.covers, box_threshold), view.source_size)
        before = text[words[-1].end if words else 0 : start]
        words.append(Word(text[start:end], start, end, log_prob, reliance, own_map, box, before=before))
    reason = "stop" if hypothesis.is_finished else "length"
    caption = Caption(text, tuple(words), sum(scored.log_probs), reason, num_tokens=len(scored.log_probs))
    return with_confidence(caption, confidence)


def without_outer_spaces(caption: Caption) -> Caption:
    """Return the caption without spaces around its text: a phrase that follows another one begins with one."""
    leading = len(caption.text) - len(caption.text.lstrip())
    words = [dataclasses.replace(word, start=word.start - leading, end=word.end - leading) for word in caption.words]
    words[:1] = [dataclasses.replace(word, before=word.before.lstrip()) for word in words[:1]]
    return dataclasses.replace(caption, text=caption.text.strip(), words=tuple(words))


def with_confidence(caption: Caption, config: ConfidenceConfig | None) -> Caption:
    """Return the caption with its confidence and that of its words, if they are calibrated and their reliance is known."""
    log_probs = [word.log_probability for word in caption.words]
    reliances = [word.image_reliance for word in caption.words if word.image_reliance is not None]
    if config is None or not log_probs or len(reliances) < len(log_probs):
        return caption
    words = caption.words
    if config.word:
        texts, features = [word.text for word in words], word_features(log_probs, reliances)
        values = word_confidences(config.word, config.word_offsets, texts, features)
        words = tuple(dataclasses.replace(word, confidence=value) for word, value in zip(words, values, strict=True))
    whole = logistic(config.caption, caption_features(log_probs, reliances)) if config.caption else None
    return dataclasses.replace(caption, words=words, confidence=whole)


def _text(
    tokenizer: CaptionTokenizer, tokens: Sequence[int], verbatim_text: str, is_full_caption: bool, style: Style
) -> tuple[str, list[int]]:
    """Return the caption's text, and for every code point of the tokenizer's own spelling its offset in that text."""
    if is_full_caption:
        plain, moves = plain_form(verbatim_text, style)
        return verbatim_text, [moves[offset] for offset in tokenizer.align(plain)]
    spelled = tokenizer.decode(tokens)
    offsets = tokenizer.align(verbatim_text)
    text = verbatim_text + spelled[len(offsets) :]
    return text, offsets + [len(verbatim_text) + offset for offset in range(len(spelled) - len(offsets))]
