"""The measured rate of captioned images: Retry-After is computed from it."""

from __future__ import annotations

import math

_MEMORY_SECONDS = 20.0  # of work, after which a measurement counts for a third


class Rate:
    """Images per second of the model thread's working time; recent work counts more."""

    def __init__(self) -> None:
        self._images = 0.0
        self._seconds = 0.0

    def add(self, images: int, seconds: float) -> None:
        """Count work: images finished in so many seconds of computing, possibly none."""
        decay = math.exp(-seconds / _MEMORY_SECONDS)
        self._images = self._images * decay + images
        self._seconds = self._seconds * decay + seconds

    def retry_after(self, images: int) -> int:
        """Return the whole seconds until so many images will have been captioned: 1 to 60, 1 before any measurement."""
        if not self._images:
            return 1
        return min(60, max(1, math.ceil(images * self._seconds / self._images)))
