"""CaptionBatch: the one driver that encodes images, steps rows and scores captions, whatever options each request has.

Captioner (one call), the service's scheduler (continuous batching), validation and evaluation are loops over it.
Not thread-safe.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from model.answers import answers, output_of
from model.calibrated import calibration_of, check_confidence, passes
from model.captions import Caption, CaptionResult, Timing, Word, build_caption
from model.device import synchronize
from model.encoder import ImageFeatures
from model.errors import TextError
from model.generation import Generation
from model.geometry import ImageView
from model.maps import MapMethod, find_map_method
from model.prefix import PrefixIds, prefix_ids
from model.prompts import prompt_ids
from model.requests import CaptionRequest
from model.runtime import Runtime
from model.scoring import check_method, scoring_pass
from model.search import Hypothesis
from model.shorten import shorter_captions
from model.state import DecoderState
from model.style import plain_form
from model.tokenizer import CaptionTokenizer
from model.unconditional import UnconditionalStates


@dataclass(slots=True)
class InFlight:
    """A request between `add` and `pop_results`."""

    request: CaptionRequest
    features: ImageFeatures  # of all images of its encoder call
    state: DecoderState  # before the first token, one row per image of the call
    index: int  # of its image in the call
    encode_ms: float
    started: float
    prompt: tuple[int, ...]  # ids that the prompt encoder has read; () without one
    hypotheses: list[Hypothesis] | None = None  # None while it is being decoded
    num_streamed: int = 0  # words that new_words has returned


class CaptionBatch:
    """Requests that are being captioned, each under a key that the caller chooses."""

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: CaptionTokenizer,
        unconditional: UnconditionalStates | None = None,
        progress: Callable[[], None] | None = None,
    ) -> None:
        """`unconditional` has the states of "no image" if the caller keeps them between batches; `progress`: scoring_pass."""
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._unconditional = unconditional or UnconditionalStates(runtime)
        self._progress = progress
        self._generation = Generation(runtime, tokenizer)
        self._in_flight: dict[Hashable, InFlight] = {}

    @property
    def num_rows(self) -> int:
        """Rows that step."""
        return self._generation.num_rows

    @property
    def keys(self) -> list[Hashable]:
        return list(self._in_flight)

    def add(self, keys: Sequence[Hashable], requests: Sequence[CaptionRequest], features: ImageFeatures | None = None) -> None:
        """Encode the images of requests together, or take their `features`, and start their captions.

        With prompts, an image that several requests share, as its regions do, is encoded once. Raises TextError for a text that
        is too long and ConfigError for an unknown language, map method or task; nothing is added then.
        """
        for request in requests:
            self._method(request)
            prefix_ids(self._runtime.config, self._tokenizer, request.language)
        for request in requests:
            check_method(self._runtime, self._method(request))
            check_confidence(self._runtime.config, request)
        prefixes = [self._prefix(request) for request in requests]
        prompts = [self._prompt(request) for request in requests]
        hypotheses = [None if request.options else [self._written(text) for text in request.texts] for request in requests]
        started = time.perf_counter()
        with torch.inference_mode():
            if features is None:
                features = self._encode(requests)
            state = self._runtime.start(features, None, prompts if any(prompts) else None)
            synchronize(self._runtime.device)
            encode_ms = 1e3 * (time.perf_counter() - started)
            decoded = [index for index, request in enumerate(requests) if request.options is not None]
            if decoded:
                self._start(keys, requests, prefixes, state, decoded)
        now = time.perf_counter()
        for index, (key, request) in enumerate(zip(keys, requests, strict=True)):
            entry = InFlight(request, features, state, index, encode_ms, now, prompts[index], hypotheses[index])
            self._in_flight[key] = entry

    def remove(self, key: Hashable) -> None:
        """Drop a request; its rows are gone before the next step."""
        if self._in_flight.pop(key).hypotheses is None:
            self._generation.remove(key)

    def step(self) -> list[Hashable]:
        """Decode the next token of every row; returns the keys of all requests whose captions can be scored."""
        if self._generation.num_rows:
            with torch.inference_mode():
                for key, hypotheses in self._generation.step().items():
                    self._in_flight[key].hypotheses = hypotheses
        return [key for key, entry in self._in_flight.items() if entry.hypotheses is not None]

    def new_words(self, key: Hashable) -> tuple[Word, ...]:
        """Return the words of a running caption that became final since the last call; () if several are sampled.

        A word is final when all live beams agree on it and on the start of what follows.
        """
        entry = self._in_flight[key]
        options = entry.request.options
        if entry.hypotheses is not None or options is None:
            return ()
        if (options.strategy == "sample" and options.num_return_sequences > 1) or options.min_confidence:
            return ()  # which caption it will be is not known before all of it is
        if output_of(self._runtime.config, entry.request) != "text":
            return ()  # it is split into phrases at its coordinates when it is complete
        tokens = self._generation.final_tokens(key)
        if self._tokenizer.count_words(tokens) - 1 <= entry.num_streamed:  # the last word may still grow
            return ()
        [[caption]] = self._score([entry], [[Hypothesis(tokens, 0.0, False)]])
        words = caption.words[entry.num_streamed : -1]
        entry.num_streamed += len(words)
        return words

    def pop_results(self, keys: Sequence[Hashable]) -> list[CaptionResult]:
        """Score the captions of requests and return them, in order; the requests leave the batch.

        Scoring four together takes little more time than scoring two one after the other.
        """
        same: dict[tuple[str | None, bool], list[Hashable]] = {}
        for key in keys:
            request = self._in_flight[key].request
            same.setdefault((request.maps, request.needs_reliance), []).append(key)
        results: dict[Hashable, CaptionResult] = {}
        for group in same.values():
            entries, started = [self._in_flight[key] for key in group], time.perf_counter()
            captions = self._score(entries, [entry.hypotheses or [] for entry in entries])
            captions = [self._confident(entry, own) for entry, own in zip(entries, captions, strict=True)]
            maps_ms = 1e3 * (time.perf_counter() - started)
            for key, entry, own_captions in zip(group, entries, captions, strict=True):
                decode_ms = 1e3 * (started - entry.started) if entry.request.options is not None else 0.0
                timing = Timing(encode_ms=entry.encode_ms, decode_ms=decode_ms, maps_ms=maps_ms)
                results[key] = CaptionResult(tuple(own_captions), entry.features.grid, timing)
        for key in keys:
            del self._in_flight[key]
        return [results[key] for key in keys]

    def run(self) -> None:
        """Step until no row is left: every request can be scored."""
        while self._generation.num_rows:
            self.step()

    def _encode(self, requests: Sequence[CaptionRequest]) -> ImageFeatures:
        """Return the features of the requests' images, in order."""
        views = [_view(request) for request in requests]
        if self._runtime.config.prompt_encoder is None:
            return self._runtime.encode(torch.stack([view.pixels for view in views]))  # (B, 3, height, width)
        distinct = list({id(view): view for view in views}.values())
        features = self._runtime.encode(torch.stack([view.pixels for view in distinct]))  # (B, 3, height, width)
        if len(distinct) == len(views):
            return features
        images = {id(view): image for image, view in enumerate(distinct)}
        return features.select([images[id(view)] for view in views])

    def _start(
        self,
        keys: Sequence[Hashable],
        requests: Sequence[CaptionRequest],
        prefixes: Sequence[PrefixIds],
        state: DecoderState,
        decoded: list[int],
    ) -> None:
        options = [option for request in requests if (option := request.options) is not None]
        state = state if len(decoded) == len(requests) else state.select(decoded)
        self._generation.add(state, [keys[index] for index in decoded], options, [prefixes[index] for index in decoded])

    def _score(self, entries: Sequence[InFlight], hypotheses: Sequence[list[Hypothesis]]) -> list[list[Caption]]:
        """Return the captions of requests with the same maps and reliance."""
        request = entries[0].request
        method = self._method(request)
        features, state = _gathered(entries)
        config = self._runtime.config
        eos = config.decoder.eos_token_id
        unconditional, unconditional_of = None, None
        if request.needs_reliance:
            unconditional, unconditional_of = self._unconditional.state([entry.prompt for entry in entries])
        rows = [(image, hypothesis) for image, group in enumerate(hypotheses) for hypothesis in group]
        special = [prefix_ids(self._runtime.config, self._tokenizer, entry.request.language).special for entry in entries]
        scored = scoring_pass(
            self._runtime,
            features,
            [image for image, _ in rows],
            [_with_end(hypothesis, eos) for _, hypothesis in rows],
            method=method,
            reliance=request.needs_reliance,
            prefixes=[special[image] for image, _ in rows],
            state=state,
            unconditional_state=unconditional,
            unconditional_of=None if unconditional_of is None else [unconditional_of[image] for image, _ in rows],
            progress=self._progress,
        )
        captions: list[list[Caption]] = [[] for _ in entries]
        for (image, hypothesis), scores in zip(rows, scored, strict=True):
            one = entries[image].request
            verbatim_text = one.texts[len(captions[image])] if one.options is None else one.options.prompt
            build = functools.partial(
                build_caption,
                self._tokenizer,
                verbatim_text=verbatim_text,
                style=(one.options or self._runtime.config.generation).style,
                confidence=calibration_of(config, one.language),
                is_full_caption=one.options is None,
                view=one.view,
                grid=features.grid,
                method=method,
                box_threshold=self._runtime.config.maps.box_threshold,
            )
            captions[image] += answers(config, self._tokenizer, one, hypothesis, scores, build)
        return captions

    def _prompt(self, request: CaptionRequest) -> tuple[int, ...]:
        """Return the ids of a request's prompt. Raises ConfigError, TextError."""
        config = self._runtime.config
        num_image_tokens = config.encoder.num_prefix_tokens + self._runtime.grid.num_patches
        return prompt_ids(config, self._tokenizer, request, num_image_tokens)

    def _confident(self, entry: InFlight, captions: list[Caption]) -> list[Caption]:
        """Return the captions, those below min_confidence shortened until they pass, or without text if none does."""
        limit = entry.request.options.min_confidence if entry.request.options is not None else 0.0
        if not limit:
            return captions
        sure: list[Caption] = []
        for caption, hypothesis in zip(captions, entry.hypotheses or [], strict=True):
            if passes(caption, limit):
                sure.append(caption)
                continue
            prompt = len(self._prefix(entry.request).prompt)
            shorter = [
                Hypothesis(tokens, 0.0, True)
                for tokens in shorter_captions(self._tokenizer, hypothesis.tokens)
                if len(tokens) > prompt
            ]
            [scored] = self._score([entry], [shorter]) if shorter else [[]]
            passing = next((other for other in scored if passes(other, limit)), None)
            sure.append(
                passing
                or dataclasses.replace(caption, text="", words=(), log_probability=0.0, finish_reason="uncertain", num_tokens=0)
            )
        return sure

    def _prefix(self, request: CaptionRequest) -> PrefixIds:
        """Return the ids before a request's caption. Raises TextError, ConfigError."""
        prompt = request.options.prompt if request.options is not None else ""
        prefix = prefix_ids(self._runtime.config, self._tokenizer, request.language, prompt)
        self._generation.check_prefix(prefix, prompt)
        return prefix

    def _method(self, request: CaptionRequest) -> MapMethod | None:
        return find_map_method(request.maps or self._runtime.config.maps.method)

    def _written(self, text: str) -> Hypothesis:
        """Return a text as a finished hypothesis. Raises TextError if it is too long."""
        tokens = tuple(self._tokenizer.encode(plain_form(text, self._runtime.config.generation.style)[0]))
        special = len(prefix_ids(self._runtime.config, self._tokenizer).special)
        if special + 1 + len(tokens) > self._runtime.config.decoder.max_positions:
            raise TextError(
                f"the caption has {len(tokens)} tokens; with start and end they must fit into "
                f"{self._runtime.config.decoder.max_positions} positions: send a shorter one"
            )
        return Hypothesis(tokens, 0.0, True)


def _with_end(hypothesis: Hypothesis, eos: int) -> tuple[int, ...]:
    """Return the tokens, and the end token of a finished caption."""
    if not hypothesis.is_finished:
        return hypothesis.tokens
    return (*hypothesis.tokens, eos if hypothesis.end is None else hypothesis.end)


def _view(request: CaptionRequest) -> ImageView:
    assert request.view is not None, "a request without features needs a view"
    return request.view


def _gathered(entries: Sequence[InFlight]) -> tuple[ImageFeatures, DecoderState]:
    """Return features and start state of the entries' images, in order; nothing is copied if they are one encoder call."""
    features, states = [], []
    for _, run in groupby(entries, key=lambda entry: id(entry.features)):
        part = list(run)
        call, indices = part[0], [entry.index for entry in part]
        is_whole = indices == list(range(call.features.num_images))
        features.append(call.features if is_whole else call.features.select(indices))
        states.append(call.state if is_whole else call.state.select(indices))
    with torch.inference_mode():
        return ImageFeatures.concat(features), DecoderState.concat(states)
