"""The service as a process: clients that hang up, SIGTERM under load, a model thread that hangs."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PICTURE = (ROOT / "docs/pictures/scene.png").read_bytes()


@contextlib.contextmanager
def running(*arguments: str, code: str = "", **settings: str):
    """Start the service on a free port of 127.0.0.1; yields its port and process, and stops it by its own id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SIGHTLINE_THREADS": "1", "SIGHTLINE_DTYPE": "float32", **settings}
    run = ["-c", code] if code else ["-m", "service"]
    command = [sys.executable, *run, "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        for _ in range(600):
            assert process.poll() is None, "".join(said)
            if status_of(port, "/readyz") == 200:
                break
            time.sleep(0.1)
        yield port, process, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(timeout=20)
        reader.join(timeout=5)
        assert process.stderr is not None
        process.stderr.close()


def status_of(port: int, path: str, body: bytes | None = None) -> int:
    """Return the status of an answer, 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (ConnectionError, http.client.HTTPException, TimeoutError):
        return 0
    finally:
        connection.close()


def test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0():
    statuses: list[int] = []
    stopped = threading.Event()

    def client(port: int) -> None:
        while not stopped.is_set():
            if (status := status_of(port, "/v1/captions", PICTURE)) == 0:
                return  # the listener has closed
            statuses.append(status)

    with running(SIGHTLINE_DRAIN_SECONDS="1") as (port, process, _):
        threads = [threading.Thread(target=client, args=(port,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert status_of(port, "/readyz") == 503, "readiness falls while the listener is still open"
        assert status_of(port, "/livez") == 200
        assert process.wait(timeout=20) == 0
        stopped.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 6
    assert set(statuses) == {200}


def test_clients_that_hang_up_cost_nothing_and_harm_nobody():
    with running() as (port, process, said):
        for _ in range(12):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                head = f"POST /v1/captions?num_beams=8 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
                line.sendall(head.encode() + PICTURE)
                time.sleep(0.02)
        assert status_of(port, "/v1/captions", PICTURE) == 200
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    left = sum("status=499" in line for line in said)
    assert left >= 6, "most of them left before their caption was found"


HANGING = """
import sys, time
from model import Captioner
from service.__main__ import main
original = Captioner.encode
calls = []
def encode(self, views):
    calls.append(len(views))
    if len(calls) > 2:  # the first is the warm-up
        time.sleep(60)
    return original(self, views)
Captioner.encode = encode
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_a_model_that_hangs_ends_the_process_with_70_after_answering_503():
    with running(code=HANGING, SIGHTLINE_WATCHDOG_SECONDS="1") as (port, process, _):
        assert status_of(port, "/v1/captions", PICTURE) == 200
        started = time.monotonic()
        assert status_of(port, "/v1/captions", PICTURE) == 503
        assert status_of(port, "/readyz") == 503
        assert process.wait(timeout=10) == 70
        assert time.monotonic() - started < 15
        assert status_of(port, "/readyz") == 0


@pytest.mark.slow
def test_sigterm_twenty_times():
    for _ in range(20):
        test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0()
