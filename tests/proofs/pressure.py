"""More load than can be served, load for a long time, and clients that send slowly, too much or nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.helpers import wait_until
from tests.proofs.load import LOST, Figures, load, memory, percentiles, post, scene_images
from tests.test_process import running, status_of

_SOAK = 20  # times as long as other loads
_PROBE_SECONDS = 0.1
# All clients of a proof have one address.
_SETTINGS = {"SIGHTLINE_DTYPE": "auto", "SIGHTLINE_THREADS": "0", "SIGHTLINE_MAX_CONNECTIONS_PER_CLIENT": "0"}


def overload(seconds: float) -> Figures:
    """Ten times what is served: only 200 and 503 with Retry-After, within the deadline, memory flat; half hang up."""
    files, pause = scene_images(8), threading.Event()
    with running(**_SETTINGS, SIGHTLINE_MAX_QUEUE_IMAGES="32") as (port, process, _):

        def call(number: int, rng: random.Random) -> object:
            hangs_up = number % 2 == 1
            patience = rng.uniform(0.02, 0.4) if hangs_up else 90
            status, _, headers = post(port, "/v1/captions", files[rng.randrange(8)], patience)
            if hangs_up and status == LOST:
                return "left"
            if status == 503:
                pause.wait(0.05)  # otherwise nearly all requests are refused ones
                return "503 with Retry-After" if int(headers["retry-after"]) >= 1 else "503 without"
            return status

        load(160, seconds / 2, call)  # the heaps grow to their sizes
        sizes = [memory(process.pid)]
        measured = load(160, seconds, call)
        wait_until(lambda: _metric(port, "sightline_queue_images") == 0)
        sizes.append(memory(process.pid))
        again = load(160, seconds / 2, call)
        wait_until(lambda: _metric(port, "sightline_queue_images") == 0)
        sizes.append(memory(process.pid))
        num_queued = _metric(port, "sightline_queue_images")
        afterwards = post(port, "/v1/captions", files[0])[0]
        process.send_signal(signal.SIGTERM)
        exit_status = process.wait(timeout=20)
    calls = measured.calls + again.calls
    accepted = sorted(duration for duration, result in calls if result == 200)
    results = Counter(str(result) for _, result in calls)
    return {
        "responses": dict(results), "slowest accepted in s": round(accepted[-1], 1),
        "resident MB after half of the load, after the load, after half as much again": [round(size) for size in sizes],
        "queued afterwards": num_queued, "afterwards": [afterwards, exit_status],
        "met": set(results) <= {"200", "503 with Retry-After", "left"} and accepted[-1] < 30 and num_queued == 0
        and afterwards == 200 and exit_status == 0 and sizes[2] - sizes[1] < 64,
    }  # fmt: skip


def soak(seconds: float) -> Figures:
    """Twenty times as long at half load, with bad clients: memory, threads and handles flat, probes prompt."""
    files = scene_images(16)
    with running(**_SETTINGS) as (port, process, _):
        full = load(16, 10, lambda _, rng: post(port, "/v1/captions", files[rng.randrange(16)])[0])
        pause = 2 * 4 / full.rate  # seconds between two calls of each of four clients: half the rate
        ended = threading.Event()
        probes, bad_clients, samples = list[float](), Counter[str](), list[tuple[float, int, int]]()
        threads = [threading.Thread(target=_probe, args=(port, probes, ended)),
                   threading.Thread(target=_sample, args=(process.pid, samples, ended)),
                   *(threading.Thread(target=_misbehave, args=(port, kind, bad_clients, ended)) for kind in _BAD)]  # fmt: skip
        for thread in threads:
            thread.start()

        def call(_: int, rng: random.Random) -> int:
            due = time.monotonic() + rng.uniform(0.5, 1.5) * pause
            status = post(port, "/v1/captions", files[rng.randrange(16)])[0]
            ended.wait(max(0.0, due - time.monotonic()))
            return status

        measured = load(4, _SOAK * seconds, call)
        ended.set()
        for thread in threads:
            thread.join()
        with contextlib.suppress(AssertionError):  # idle connections are closed after 10 s; the figures show it if they are not
            wait_until(lambda: _resources(process.pid)[2] <= samples[0][2] + 8)
        last = _resources(process.pid)
        afterwards = post(port, "/v1/captions", files[0])[0]
    quarter = max(1, len(samples) // 4)
    early, late = (statistics.median(size for size, _, _ in part) for part in (samples[quarter:][:quarter], samples[-quarter:]))
    statuses, latencies = Counter(map(str, measured.results)), percentiles(probes)
    return {
        "minutes": round(measured.seconds / 60, 1), "responses": dict(statuses),
        "captions per second": round(measured.rate, 1), "share of its capacity": round(measured.rate / full.rate, 2),
        "resident MB in the second and the last quarter": [round(early), round(late)],
        "threads and handles at first and afterwards": [list(samples[0][1:]), list(last[1:])],
        "bad clients": dict(bad_clients),
        "probes' p50, p95, p99, maximum in ms": [round(1e3 * value, 1) for value in (*latencies, max(probes))],
        "probes": len(probes),
        "met": set(statuses) == {"200"} and late - early < 64 and last[1] <= samples[0][1] + 4 and last[2] <= samples[0][2] + 8
        and latencies[2] < 0.1 and afterwards == 200 and not any("NOT" in kind for kind in bad_clients),
    }  # fmt: skip


def _probe(port: int, probes: list[float], ended: threading.Event) -> None:
    while not ended.wait(_PROBE_SECONDS):
        started = time.monotonic()
        assert status_of(port, "/livez") == 200
        probes.append(time.monotonic() - started)


def _sample(pid: int, samples: list[tuple[float, int, int]], ended: threading.Event) -> None:
    samples.append(_resources(pid))
    while not ended.wait(5):
        samples.append(_resources(pid))


def _resources(pid: int) -> tuple[float, int, int]:
    """Return resident megabytes, threads and open handles of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    num_threads = int(status.partition("Threads:")[2].split()[0])
    return memory(pid), num_threads, len(os.listdir(f"/proc/{pid}/fd"))


def _metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def _misbehave(port: int, kind: str, results: Counter[str], ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            is_cut_off = _BAD[kind](port)
        except OSError:
            is_cut_off = True  # closed while it was sending
        results[f"{kind}: cut off" if is_cut_off else f"{kind}: NOT cut off"] += 1
        ended.wait(3)


def _idle(port: int) -> bool:
    """500 connections that send nothing: closed after the time for headers, 10 s."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(500)]
        return all(_closed(connection) for connection in sockets)


def _slow_headers(port: int) -> bool:
    """Headers at one byte per second."""
    pause = threading.Event()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for byte in b"POST /v1/captions HTTP/1.1\r\nHost: x\r\n":
            connection.sendall(bytes([byte]))
            pause.wait(1)
        return False


def _large_header(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nx-large: " + b"a" * 8_000_000)
        return b"431" in connection.recv(100)


def _many_headers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        headers = b"".join(b"x-%d: a\r\n" % number for number in range(20_000))
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + headers + b"\r\n")
        return b"431" in connection.recv(100)


def _announced(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
        return b" 413 " in connection.recv(100)


def _chunked(port: int) -> bool:
    """200 MB that are not announced."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
        return False


def _closed(connection: socket.socket) -> bool:
    """Read until the service closes a connection."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return True
    return True


_BAD: dict[str, Callable[[int], bool]] = {
    "500 idle connections": _idle,
    "one byte per second": _slow_headers,
    "8 MB header": _large_header,
    "20,000 headers": _many_headers,
    "200 MB announced": _announced,
    "200 MB in chunks": _chunked,
}
