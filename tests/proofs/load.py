"""What the proofs share: synthetic images, many clients, and what a process takes of the machine."""

from __future__ import annotations

import http.client
import io
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import draw_scene

ROOT = Path(__file__).parent.parent.parent
Figures = dict[str, object]  # what a proof measured; "met" says whether its requirements are met

REFUSED, LOST = 0, -1  # no connection; a connection that ended without a response
_TICK = os.sysconf("SC_CLK_TCK")


def scene_images(count: int, format: str = "JPEG") -> list[bytes]:
    """Return rendered synthetic scenes as files."""
    images = []
    for number in range(count):
        file = io.BytesIO()
        draw_scene(77, number).render().save(file, format)
        images.append(file.getvalue())
    return images


def post(
    port: int, path: str, data: bytes, seconds: float = 90.0, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; the status is REFUSED or LOST if there is no response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.connect()
    except OSError:
        return REFUSED, b"", {}
    try:
        connection.request("POST", path, data, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    except (OSError, http.client.HTTPException):
        return LOST, b"", {}
    finally:
        connection.close()


@dataclass(frozen=True)
class Load:
    """What clients measured: (seconds, result) of every call, and the cores that they used themselves."""

    calls: list[tuple[float, object]]
    seconds: float
    cores: float

    @property
    def rate(self) -> float:
        return len(self.calls) / self.seconds

    @property
    def results(self) -> list[object]:
        return [result for _, result in self.calls]

    def percentiles(self) -> list[float]:
        """Return p50, p95 and p99 in seconds."""
        return percentiles([duration for duration, _ in self.calls])


def percentiles(durations: Sequence[float]) -> list[float]:
    """Return p50, p95 and p99, to a millisecond."""
    ordered = sorted(durations)
    return [round(ordered[int(len(ordered) * share)], 3) for share in (0.5, 0.95, 0.99)]


def load(clients: int, seconds: float, call: Callable[[int, random.Random], object]) -> Load:
    """Run so many threads, each of which repeats `call(number, rng)` for some seconds."""
    results: list[tuple[float, object]] = []
    before, start = sum(os.times()[:2]), time.monotonic()

    def client(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < start + seconds:
            started = time.monotonic()
            result = call(number, rng)
            results.append((time.monotonic() - started, result))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    duration = time.monotonic() - start
    return Load(results, duration, round((sum(os.times()[:2]) - before) / duration, 2))


def memory(pid: int) -> float:
    """Return the resident megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def descendants(pid: int) -> list[int]:
    """Return the children of a process, their children, and so on."""
    children_of: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children_of.setdefault(parent, []).append(int(folder.name))
    pids, queue = list[int](), [pid]
    while queue:
        children = children_of.get(queue.pop(), [])
        pids += children
        queue += children
    return pids
