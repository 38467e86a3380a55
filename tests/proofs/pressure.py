"""More than can be served, for a short time and for a long one, and clients that behave badly."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.proofs.load import LOST, Figures, load, memory, percentiles, pictures, post
from tests.test_process import running, status_of

_SOAK = 20  # times as long as other loads
_PROBE_SECONDS = 0.1


def overload(seconds: float) -> Figures:
    """Ten times what is served: only 200 and 503 with Retry-After, inside the deadline, memory flat; half hang up."""
    files = pictures(8)
    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_QUEUE_IMAGES="32") as (port, process, _):

        def call(number: int, dice: random.Random) -> object:
            leaves = number % 2 == 1
            patience = dice.uniform(0.02, 0.4) if leaves else 90
            status, _, headers = post(port, "/v1/captions", files[dice.randrange(8)], patience)
            if leaves and status == LOST:
                return "left"
            if status == 503:
                time.sleep(0.05)  # else the load is of refusals alone
                return "503 with Retry-After" if int(headers["retry-after"]) >= 1 else "503 without"
            return status

        load(160, seconds / 2, call)  # the heaps take what they take once
        sizes = [memory(process.pid)]
        found = load(160, seconds, call)
        time.sleep(2)
        sizes.append(memory(process.pid))
        again = load(160, seconds / 2, call)
        time.sleep(2)
        sizes.append(memory(process.pid))
        rows = _metric(port, "sightline_queue_rows")
        whole = post(port, "/v1/captions", files[0])[0]
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=20)
    calls = found.calls + again.calls
    answered = sorted(taken for taken, kind in calls if kind == 200)
    kinds = Counter(str(kind) for _, kind in calls)
    return {
        "answers": dict(kinds), "slowest accepted in s": round(answered[-1], 1),
        "resident MB after half of the load, after the load, after half as much again": [round(size) for size in sizes],
        "queued afterwards": rows, "afterwards": [whole, status],
        "met": set(kinds) <= {"200", "503 with Retry-After", "left"} and answered[-1] < 30 and rows == 0
        and whole == 200 and status == 0 and sizes[2] - sizes[1] < 64,
    }  # fmt: skip


def soak(seconds: float) -> Figures:
    """Twenty times as long at half load beside clients that behave badly: memory, threads and handles flat, probes prompt."""
    files = pictures(16)
    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0") as (port, process, _):
        full = load(16, 10, lambda _, dice: post(port, "/v1/captions", files[dice.randrange(16)])[0])
        pause = 2 * 4 / full.rate  # seconds between two calls of each of four clients: half the rate
        ended = threading.Event()
        probes, cut, samples = list[float](), Counter[str](), list[tuple[float, int, int]]()
        workers = [threading.Thread(target=_probe, args=(port, probes, ended)),
                   threading.Thread(target=_sample, args=(process.pid, samples, ended)),
                   *(threading.Thread(target=_misbehave, args=(port, kind, cut, ended)) for kind in _BAD)]  # fmt: skip
        for worker in workers:
            worker.start()

        def call(_: int, dice: random.Random) -> int:
            due = time.monotonic() + dice.uniform(0.5, 1.5) * pause
            status = post(port, "/v1/captions", files[dice.randrange(16)])[0]
            time.sleep(max(0.0, due - time.monotonic()))
            return status

        found = load(4, _SOAK * seconds, call)
        ended.set()
        for worker in workers:
            worker.join()
        time.sleep(12)  # what is idle is closed
        last = _taken(process.pid)
        whole = post(port, "/v1/captions", files[0])[0]
    quarter = max(1, len(samples) // 4)
    early, late = (statistics.median(size for size, _, _ in part) for part in (samples[quarter:][:quarter], samples[-quarter:]))
    kinds, times = Counter(map(str, found.results)), percentiles(probes)
    return {
        "minutes": round(found.seconds / 60, 1), "answers": dict(kinds),
        "captions a second": round(found.rate, 1), "of what it can": round(found.rate / full.rate, 2),
        "resident MB in the second and the last quarter": [round(early), round(late)],
        "threads and handles at first and afterwards": [list(samples[0][1:]), list(last[1:])],
        "bad clients": dict(cut), "probes' p50, p95, p99, maximum in ms": [round(1e3 * t, 1) for t in (*times, max(probes))],
        "probes": len(probes),
        "met": set(kinds) == {"200"} and late - early < 64 and last[1] <= samples[0][1] + 4 and last[2] <= samples[0][2] + 8
        and times[2] < 0.1 and whole == 200 and not any("NOT" in kind for kind in cut),
    }  # fmt: skip


def _probe(port: int, probes: list[float], ended: threading.Event) -> None:
    while not ended.wait(_PROBE_SECONDS):
        began = time.monotonic()
        assert status_of(port, "/livez") == 200
        probes.append(time.monotonic() - began)


def _sample(pid: int, samples: list[tuple[float, int, int]], ended: threading.Event) -> None:
    samples.append(_taken(pid))
    while not ended.wait(5):
        samples.append(_taken(pid))


def _taken(pid: int) -> tuple[float, int, int]:
    """Return resident megabytes, threads and open handles of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads = int(status.partition("Threads:")[2].split()[0])
    return memory(pid), threads, len(os.listdir(f"/proc/{pid}/fd"))


def _metric(port: int, name: str) -> float:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def _misbehave(port: int, kind: str, cut: Counter[str], ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            told = _BAD[kind](port)
        except OSError:
            told = True  # closed while it sent
        cut[f"{kind}: cut off" if told else f"{kind}: NOT cut off"] += 1
        ended.wait(3)


def _idle(port: int) -> bool:
    """500 connections that say nothing: closed with the time of headers, 10 s."""
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(500)]
        return all(_closed(line) for line in lines)


def _dripping(port: int) -> bool:
    """Headers of one byte a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        for byte in b"POST /v1/captions HTTP/1.1\r\nHost: x\r\n":
            line.sendall(bytes([byte]))
            time.sleep(1)
        return False


def _large_header(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\nx-large: " + b"a" * 8_000_000)
        return b"431" in line.recv(100)


def _many_headers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\n" + b"".join(b"x-%d: a\r\n" % number for number in range(20_000)) + b"\r\n")
        return b"431" in line.recv(100)


def _announced(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
        return b" 413 " in line.recv(100)


def _chunked(port: int) -> bool:
    """200 MB that are not announced."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            line.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
        return False


def _closed(line: socket.socket) -> bool:
    try:
        while line.recv(4096):
            pass
    except ConnectionError:
        return True
    return True


_BAD: dict[str, Callable[[int], bool]] = {
    "500 idle connections": _idle,
    "a byte a second": _dripping,
    "8 MB header": _large_header,
    "20,000 headers": _many_headers,
    "200 MB announced": _announced,
    "200 MB in chunks": _chunked,
}
