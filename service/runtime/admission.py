"""Admission: how many images, body bytes and pixels may be in the service at once.

Bytes are counted as they arrive, never by an announced length: a client that announces and sends nothing takes nothing. An image
is counted when its body is complete. One client's bytes may take half of the limit, so that slow bodies of one cannot keep
others out. Belongs to the event loop: nothing here is locked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import ServiceError, retry_error

_CLIENT_SHARE = 0.5  # of the body bytes


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What may be in the service at once, waiting or being processed."""

    images: int
    body_bytes: int
    pixels: int  # of images being decoded


class Ticket:
    """What one request has been admitted with; `close` returns it."""

    def __init__(self, admission: Admission, client: str) -> None:
        self._admission = admission
        self._client = client
        self._held = {"images": 0, "body_bytes": 0, "pixels": 0}
        self._is_closed = False

    def take(self, kind: str, amount: int) -> None:
        """Take more of "images", "body_bytes" or "pixels".

        Raises ServiceError, with nothing taken, if the limit is reached or the request has ended.
        """
        if self._is_closed:  # an image worker may ask for a client that has left in the meantime
            raise ServiceError("overloaded", "the request has ended")
        self._admission.take(kind, amount, self._held[kind], self._client)
        self._held[kind] += amount

    def give_back(self, kind: str) -> None:
        """Return everything of one kind."""
        self._admission.give_back(kind, self._held[kind], self._client)
        self._held[kind] = 0

    def close(self) -> None:
        self._is_closed = True
        for kind in self._held:
            self.give_back(kind)


class Admission:
    """Counts what is in the service; refuses with the time after which there should be capacity."""

    def __init__(self, limits: AdmissionLimits, retry_after: Callable[[int], int]) -> None:
        self._limits = {"images": limits.images, "body_bytes": limits.body_bytes, "pixels": limits.pixels}
        self._used = dict.fromkeys(self._limits, 0)
        self._client_bytes: Counter[str] = Counter()
        self._retry_after = retry_after

    @property
    def used(self) -> dict[str, int]:
        return dict(self._used)

    @contextmanager
    def open(self, client: str = "") -> Iterator[Ticket]:
        """Give a request a ticket while the block runs. Raises ServiceError (503) if as many images are in as may be."""
        if self._used["images"] >= self._limits["images"]:
            raise self._overloaded()
        ticket = Ticket(self, client)
        try:
            yield ticket
        finally:
            ticket.close()

    def take(self, kind: str, amount: int, own: int, client: str) -> None:
        """Count more of a request that holds `own` already; a request that is alone is always admitted."""
        if self._used[kind] + amount > self._limits[kind] and self._used[kind] > own:
            raise self._overloaded()
        if kind == "body_bytes":
            others = self._client_bytes[client] - own
            if others > 0 and others + own + amount > _CLIENT_SHARE * self._limits[kind]:
                raise self._overloaded()
            self._client_bytes[client] += amount
        self._used[kind] += amount

    def give_back(self, kind: str, amount: int, client: str) -> None:
        self._used[kind] -= amount
        if kind == "body_bytes" and amount:
            self._client_bytes[client] -= amount
            if not self._client_bytes[client]:
                del self._client_bytes[client]

    def _overloaded(self) -> ServiceError:
        seconds = self._retry_after(self._used["images"])
        detail = f"{self._used['images']} images are waiting or being processed; try again in {seconds} s"
        return retry_error("overloaded", detail, seconds)
