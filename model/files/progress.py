"""Progress on standard error: one line that is redrawn on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

_SECONDS_ON_TERMINAL = 0.2
_SECONDS_ELSEWHERE = 10.0


class ProgressLine:
    """Shows how many images are done, the rate, and the time left."""

    def __init__(self) -> None:
        self._total = 0
        self._started = self._shown = 0.0
        self._is_terminal = sys.stderr.isatty()
        self._is_drawn = False

    def start(self, total: int) -> None:
        """Begin to count: `total` images are to be captioned."""
        self._total = total
        self._started = self._shown = time.monotonic()

    def update(self, done: int, failed: int) -> None:
        now = time.monotonic()
        seconds = _SECONDS_ON_TERMINAL if self._is_terminal else _SECONDS_ELSEWHERE
        if now - self._shown < seconds and not (self._is_terminal and done == self._total):
            return
        self._shown = now
        line = progress_line(done, self._total, failed, now - self._started)
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._is_drawn = True
        else:
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line, so that other text can be printed."""
        if self._is_drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_drawn = False


def progress_line(done: int, total: int, failed: int, seconds: float) -> str:
    """Return "12 of 40 images, 1 failed, 3.1 per second, 9 s left"."""
    rate = done / max(seconds, 1e-9)
    failures = f", {failed} failed" if failed else ""
    left = _duration((total - done) / rate) if done else "?"
    return f"{done} of {total} images{failures}, {rate:.1f} per second, {left} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
