"""The decoder state of "no image", kept between batches: one per prompt, as what the decoder attends to depends on the prompt."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from model.runtime import Runtime
from model.state import DecoderState

_NUM_KEPT = 8  # prompts: those of tasks repeat, those with a region or a text do not


class UnconditionalStates:
    """States of "no image" by prompt. It may be shared by threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._states: dict[tuple[int, ...], DecoderState] = {}  # in the order of their last use
        self._lock = threading.Lock()

    def state(self, prompts: Sequence[tuple[int, ...]]) -> tuple[DecoderState, list[int]]:
        """Return a state with a row per distinct prompt, and the row of each of `prompts`; () is that of a checkpoint without."""
        distinct = list(dict.fromkeys(prompts))
        rows = {prompt: row for row, prompt in enumerate(distinct)}
        return DecoderState.concat([self._of(prompt) for prompt in distinct]), [rows[prompt] for prompt in prompts]

    def _of(self, prompt: tuple[int, ...]) -> DecoderState:
        with self._lock:
            known = self._states.pop(prompt, None)
            if known is not None:
                self._states[prompt] = known
                return known
        with torch.inference_mode():
            state = self._runtime.start(self._runtime.unconditional(), None, [prompt] if prompt else None)
        with self._lock:
            self._states[prompt] = state
            while len(self._states) > _NUM_KEPT:
                del self._states[next(iter(self._states))]
        return state
