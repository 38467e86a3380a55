"""Who may come in: pictures, bytes and pixels are taken as soon as they are known, and given back with the answer.

Counting only what is decoded would spend seconds on pictures that are refused afterwards, and memory on those that wait.
Belongs to the event loop: nothing here is locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import Problem


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What may be in the house at once, waiting or worked on."""

    pictures: int
    body_bytes: int
    pixels: int  # of pictures being decoded


class Place:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = {"pictures": 0, "body_bytes": 0, "pixels": 0}
        self._left = False

    def take(self, kind: str, amount: int) -> None:
        """Hold so much more. Raises Problem, with nothing taken, where it is not to be had, or where the request has ended."""
        if self._left:  # a decoder may ask for a client that has gone meanwhile
            raise Problem("overloaded", "the request has ended")
        self._admission.take(kind, amount, self._held[kind])
        self._held[kind] += amount

    def give_back(self, kind: str) -> None:
        """Give back all that is held of one kind."""
        self._admission.give(kind, self._held[kind])
        self._held[kind] = 0

    def leave(self) -> None:
        self._left = True
        for kind in self._held:
            self.give_back(kind)


class Admission:
    """Counts what is in the house; refuses with the time after which there should be room."""

    def __init__(self, limits: AdmissionLimits, retry_after: Callable[[int], int]) -> None:
        self._most = {"pictures": limits.pictures, "body_bytes": limits.body_bytes, "pixels": limits.pixels}
        self._used = dict.fromkeys(self._most, 0)
        self._retry_after = retry_after

    @property
    def used(self) -> dict[str, int]:
        return dict(self._used)

    @contextmanager
    def enter(self, pictures: int = 1) -> Iterator[Place]:
        """Hold a place for so many pictures while the block runs. Raises Problem (503) where the house is full."""
        place = Place(self)
        try:
            place.take("pictures", pictures)
            yield place
        finally:
            place.leave()

    def take(self, kind: str, amount: int, own: int = 0) -> None:
        """Count so much more of a request that holds `own` already: one alone always finds room."""
        if self._used[kind] + amount > self._most[kind] and self._used[kind] > own:
            seconds = self._retry_after(self._used["pictures"])
            raise Problem(
                "overloaded",
                f"{self._used['pictures']} pictures are waiting or worked on; try again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
        self._used[kind] += amount

    def give(self, kind: str, amount: int) -> None:
        self._used[kind] -= amount
