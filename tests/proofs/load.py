"""What the proofs share: drawn pictures, clients by the dozen, and what a process takes of the machine."""

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
Figures = dict[str, object]  # what a proof found; "met" says whether it is what was wanted

REFUSED, LOST = 0, -1  # no connection; a connection that ended without an answer
_TICK = os.sysconf("SC_CLK_TCK")


def pictures(count: int, format: str = "JPEG") -> list[bytes]:
    """Return drawn scenes as files."""
    found = []
    for number in range(count):
        file = io.BytesIO()
        draw_scene(77, number).render().save(file, format)
        found.append(file.getvalue())
    return found


def post(
    port: int, path: str, data: bytes, seconds: float = 90.0, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; REFUSED or LOST where there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.connect()
    except OSError:
        return REFUSED, b"", {}
    try:
        connection.request("POST", path, data, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException):
        return LOST, b"", {}
    finally:
        connection.close()


@dataclass(frozen=True)
class Load:
    """What clients found: (seconds, result) of every call, and the cores that they took themselves."""

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
        return percentiles([taken for taken, _ in self.calls])


def percentiles(times: Sequence[float]) -> list[float]:
    """Return p50, p95 and p99, to a millisecond."""
    ordered = sorted(times)
    return [round(ordered[int(len(ordered) * share)], 3) for share in (0.5, 0.95, 0.99)]


def load(clients: int, seconds: float, call: Callable[[int, random.Random], object]) -> Load:
    """Let so many threads call as fast as they are answered."""
    results: list[tuple[float, object]] = []
    before, start = sum(os.times()[:2]), time.monotonic()

    def client(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < start + seconds:
            began = time.monotonic()
            found = call(number, dice)
            results.append((time.monotonic() - began, found))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    return Load(results, took, round((sum(os.times()[:2]) - before) / took, 2))


def memory(pid: int) -> float:
    """Return the resident megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those of them."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(folder.name))
    found, left = list[int](), [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found
