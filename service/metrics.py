"""Prometheus metrics: requests by endpoint and status, queue, rows, steps, words, rejections, device memory, process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from model import Captioner

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application, in its own registry. May be used from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"sightline_{name}", help, labels, registry=self.registry)

        def histogram(name: str, help: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(f"sightline_{name}", help, labels, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "Answered requests", ["endpoint", "status"])
        self.request_seconds = histogram("request_seconds", "From headers to response", _SECONDS, ["endpoint"])
        self.queue_seconds = histogram("queue_seconds", "An image's wait for its encoder call", _SECONDS)
        self.queue_images = Gauge("sightline_queue_images", "Images in the queue", registry=self.registry)
        self.batch_rows = histogram("batch_rows", "Rows per step", _ROWS)
        self.step_seconds = histogram("step_seconds", "One step of all rows", _SECONDS)
        self.encode_seconds = histogram("encode_seconds", "One encoder call", _SECONDS)
        self.words = counter("words", "Words of finished captions")
        self.rejected = counter("rejected", "Rejected requests", ["code"])
        self.model = Info("sightline_model", "A checkpoint that is served", ["name"], registry=self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def watch_queue(self, num_waiting: Callable[[], int]) -> None:
        """Read the length of the queue whenever metrics are read."""
        self.queue_images.set_function(num_waiting)

    def watch_device(self, memory: Callable[[], dict[str, int]]) -> None:
        """Read the device's memory whenever metrics are read: bytes by kind, none for a CPU."""
        self.registry.register(_DeviceMemory(memory))

    def set_model(self, name: str, captioner: Captioner) -> None:
        """Set the information about the checkpoint that is served under a name."""
        policy = captioner.policy
        dtype = str(policy.dtype).removeprefix("torch.")
        values = {"parameters": str(captioner.parameters), "dtype": dtype, "device": str(policy.device)}
        self.model.labels(name).info(values)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _DeviceMemory(Collector):
    def __init__(self, memory: Callable[[], dict[str, int]]) -> None:
        self._memory = memory

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric with a sample per kind."""
        family = GaugeMetricFamily("sightline_device_memory_bytes", "Memory of the GPU", labels=["kind"])
        for kind, value in self._memory().items():
            family.add_metric([kind], value)
        yield family
