"""Job: one image from the queue to its captions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from model import Captioner, CaptionRequest, CaptionResult, Word


@dataclass(eq=False, slots=True)
class Job:
    """One image from the queue to its captions. Cancelling `future` is how a client leaves."""

    captioner: Captioner
    request: CaptionRequest
    group: Hashable  # of the images of one HTTP request
    queued: float = field(default_factory=time.perf_counter)
    queue_ms: float = 0.0
    future: Future[CaptionResult] = field(default_factory=Future)
    on_words: Callable[[tuple[Word, ...]], None] | None = None  # called in the model thread with words that became final

    def finish(self, result: CaptionResult) -> None:
        if not self.future.cancelled():
            with contextlib.suppress(InvalidStateError):  # it was cancelled in between
                self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.future.cancelled():
            with contextlib.suppress(InvalidStateError):
                self.future.set_exception(error)
