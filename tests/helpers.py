"""What several tests share: decoding without a Captioner, and a runtime that counts, fails or waits on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from model import Captioner, GenerationOptions, Hypothesis, Runtime, prefix_ids
from model.generation import Generation

_PAUSE_SECONDS = 60.0  # at most: a test that has failed ends


def start(
    generation: Generation, network: Runtime, tokenizer: Any, features: Any, keys: Sequence[Hashable], options: Any
) -> None:
    """Add images to a generation, each with a key and options of its own."""
    prefixes = [prefix_ids(network.config, tokenizer, prompt=option.prompt) for option in options]
    generation.add(network.start(features), keys, options, prefixes)


def finish(generation: Generation) -> dict[Hashable, list[Hypothesis]]:
    """Step until every caption is finished."""
    finished: dict[Hashable, list[Hypothesis]] = {}
    while generation.num_rows:
        finished |= generation.step()
    return finished


def hypotheses_of(
    network: Runtime, tokenizer: Any, features: Any, options: Sequence[GenerationOptions]
) -> dict[Any, list[Hypothesis]]:
    """Return the hypotheses of each image, by its index."""
    generation = Generation(network, tokenizer)
    with torch.no_grad():
        start(generation, network, tokenizer, features, list(range(len(options))), options)
        return finish(generation)


class WatchedRuntime:
    """A runtime that delegates to another one, counts encoder calls, and calls hooks first: they may raise or wait."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.encoded: list[int] = []  # images per encoder call
        self.before_encode: Callable[[torch.Tensor], None] = lambda pixels: None
        self.before_decode: Callable[[torch.Tensor, bool], None] = lambda tokens, weights: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, pixels: torch.Tensor) -> Any:
        self.encoded.append(pixels.size(0))
        self.before_encode(pixels)
        return self._inner.encode(pixels)

    def decode(self, tokens: torch.Tensor, state: Any, *, weights: bool = False, logits_mask: torch.Tensor | None = None) -> Any:
        self.before_decode(tokens, weights)
        return self._inner.decode(tokens, state, weights=weights, logits_mask=logits_mask)


def watched(captioner: Captioner) -> tuple[Captioner, WatchedRuntime]:
    """Return a captioner over a watched runtime, and that runtime."""
    runtime = WatchedRuntime(captioner.runtime)
    return Captioner(runtime, captioner.tokenizer, card=captioner.card, parameters=captioner.parameters), runtime


class PausingHook:
    """A hook of WatchedRuntime that waits until `go_on` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, _: torch.Tensor) -> None:
        self.entered.set()
        self.go_on.wait(_PAUSE_SECONDS)


def paused(captioner: Captioner) -> tuple[Captioner, PausingHook]:
    """Return a captioner whose encoder calls wait, and what they wait for."""
    other, runtime = watched(captioner)
    runtime.before_encode = hook = PausingHook()
    return other, hook


def failing(captioner: Captioner, error: BaseException) -> Captioner:
    """Return a captioner that decodes captions and raises `error` in their scoring pass."""
    other, runtime = watched(captioner)

    def fail(_: torch.Tensor, weights: bool) -> None:
        if weights:
            raise error

    runtime.before_decode = fail
    return other


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds. Raises AssertionError if it does not within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.002)
