"""What Prometheus reads: requests by endpoint and status, queues, rows, steps, words, refusals, the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from model import Captioner

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application, in a registry of its own. May be used from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, told: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"sightline_{name}", told, labels, registry=self.registry)

        def histogram(name: str, told: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(f"sightline_{name}", told, labels, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered", ["endpoint", "status"])
        self.request_seconds = histogram("request_seconds", "From headers to answer", _SECONDS, ["endpoint"])
        self.queue_seconds = histogram("queue_seconds", "A picture's wait for its encoder call", _SECONDS)
        self.queue_rows = Gauge("sightline_queue_rows", "Pictures that are queued", registry=self.registry)
        self.max_batch_rows = histogram("max_batch_rows", "Rows of a step", _ROWS)
        self.step_seconds = histogram("step_seconds", "A step of all rows", _SECONDS)
        self.encode_seconds = histogram("encode_seconds", "An encoder call", _SECONDS)
        self.words = counter("words", "Words of captions that were found")
        self.rejected = counter("rejected", "Requests refused", ["code"])
        self.model = Info("sightline_model", "A checkpoint that is served", ["name"], registry=self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Read the length of the queue whenever somebody asks."""
        self.queue_rows.set_function(waiting)

    def tell_model(self, name: str, captioner: Captioner) -> None:
        """Say which checkpoint is served under a name."""
        dtype = str(captioner.policy.dtype).removeprefix("torch.")
        self.model.labels(name).info({"parameters": str(captioner.parameters), "dtype": dtype})

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
