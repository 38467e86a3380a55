"""SIGTERM and Ctrl-C: a run ends after the step that it is in, and saves its state. A second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from model import CaptionerError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(CaptionerError):
    """A run was stopped by a signal after its state was saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + number


class StopSignals:
    """Notes the first SIGTERM or SIGINT. A context manager; other threads than the main one can install no handlers."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that came, 0 if none
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
