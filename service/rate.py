"""How fast pictures are captioned: what Retry-After is computed from."""

from __future__ import annotations

import math

_MEMORY = 20.0  # seconds of work after which a measurement counts for a third


class Rate:
    """Pictures a second of the model thread's working time; recent work counts more."""

    def __init__(self) -> None:
        self._pictures = 0.0
        self._seconds = 0.0

    def add(self, pictures: int, seconds: float) -> None:
        """Count work: pictures finished in so many seconds of computing, of which there may be none."""
        kept = math.exp(-seconds / _MEMORY)
        self._pictures = self._pictures * kept + pictures
        self._seconds = self._seconds * kept + seconds

    def retry_after(self, pictures: int) -> int:
        """Return in how many whole seconds so many pictures will have been captioned: 1 to 60, 1 before anything was measured."""
        if not self._pictures:
            return 1
        return min(60, max(1, math.ceil(pictures * self._seconds / self._pictures)))
