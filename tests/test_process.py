"""The service as a process: its first lines, SIGTERM under load, a model thread that hangs."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent
SECONDS = 120.0  # after which a test has failed: a busy machine is slow


def noise_image() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((320, 240), 64).convert("RGB").save(file, "JPEG")
    return file.getvalue()


IMAGE = noise_image()


@contextlib.contextmanager
def running(*arguments: str, code: str = "", **settings: str) -> Iterator[tuple[int, subprocess.Popen, list[str]]]:
    """Start the service on a free port of 127.0.0.1, and stop it by its own id.

    Yields its port, the process, and the lines of its log, to which later lines are added.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SIGHTLINE_THREADS": "1", "SIGHTLINE_DTYPE": "float32", **settings}
    run = ["-c", code] if code else ["-m", "service"]
    command = [sys.executable, *run, "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()

    def is_ready() -> bool:
        assert process.poll() is None, "".join(lines)
        return status_of(port, "/readyz") == 200

    try:
        wait_until(is_ready, SECONDS)
        yield port, process, lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(timeout=20)
        reader.join(timeout=5)
        assert process.stderr is not None
        process.stderr.close()


def status_of(port: int, path: str, body: bytes | None = None) -> int:
    """Return the status of a response, 0 if nothing listens or the connection is closed."""
    return response_of(port, path, body)[0]


def response_of(port: int, path: str, body: bytes | None = None) -> tuple[int, str]:
    """Return status and text of a response, 0 and "" if nothing listens or the connection is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (ConnectionError, http.client.HTTPException, TimeoutError):
        return 0, ""
    finally:
        connection.close()


@contextlib.contextmanager
def posting(port: int) -> Iterator[list[int]]:
    """Post images by six clients until the listener has closed. Yields the statuses, to which later ones are added."""
    statuses: list[int] = []

    def post_until_closed() -> None:
        while status := status_of(port, "/v1/captions", IMAGE):
            statuses.append(status)

    threads = [threading.Thread(target=post_until_closed) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) >= 6, SECONDS)
    yield statuses
    for thread in threads:  # not after a failure, as the listener may be open
        thread.join()


def test_readiness_falls_while_the_listener_is_open_and_a_second_signal_closes_it():
    long = {"SIGHTLINE_DRAIN_SECONDS": str(10 * SECONDS), "SIGHTLINE_DEADLINE_SECONDS": str(SECONDS)}
    with running(**long) as (port, process, lines):
        assert "starting" in lines[0]
        assert any("ready" in line and f"http://127.0.0.1:{port}" in line for line in lines)
        with posting(port) as statuses:
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: status_of(port, "/readyz") == 503, SECONDS)
            num_answered = len(statuses)
            assert status_of(port, "/livez") == 200
            wait_until(lambda: len(statuses) > num_answered + 6, SECONDS)  # requests that came after the signal
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=SECONDS) == 0
        assert status_of(port, "/readyz") == 0
    assert set(statuses) == {200}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0(number):
    """Once in make test: tests/test_end_to_end.py."""
    settings = {"SIGHTLINE_DRAIN_SECONDS": "1", "SIGHTLINE_DEADLINE_SECONDS": str(SECONDS)}
    with running(**settings) as (port, process, _), posting(port) as statuses:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import service.__main__ as main; main.make_parser(); main.Settings()", "False PASSIVE"),
        ("import service.workers.worker", "True PASSIVE"),
        ("import service.http.json_encoding", "True PASSIVE"),
        ("import service.runtime.checkpoints", "True PASSIVE"),
    ],
)
def test_the_first_line_of_the_log_needs_no_torch_and_what_does_sets_its_environment_first(code, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    check = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':  # it would take seconds; how it begins is known here\n"
        "            print(True, os.environ.get('OMP_WAIT_POLICY'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"{code}\n"
        "print(False, 'PASSIVE')"
    )
    process = subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == expected


HOOKED = """
import sys
import threading
from service import Settings, create_app
from service.logs import start_logging
from service.runtime import load_captioners
from service.server import DrainingServer
from tests.helpers import watched

{hook}

if __name__ == "__main__":
    settings = Settings(port=int(sys.argv[sys.argv.index("--port") + 1]))
    start_logging(settings.log_format)
    ((name, captioner),) = load_captioners(settings).items()
    captioner, runtime = watched(captioner)
    runtime.before_encode = hook
    server = DrainingServer(create_app({{name: captioner}}, settings), settings)
    server.run()
    sys.exit(server.status)
"""


HANG_AFTER_FIRST = """
calls = []
def hook(_):
    calls.append(1)
    if len(calls) > 1:
        threading.Event().wait()
"""


def test_a_model_that_hangs_ends_the_process_with_70_after_answering_503():
    with running(code=HOOKED.format(hook=HANG_AFTER_FIRST), SIGHTLINE_WATCHDOG_SECONDS="5") as (port, process, _):
        assert status_of(port, "/v1/captions", IMAGE) == 200
        assert status_of(port, "/v1/captions", IMAGE) == 503
        assert status_of(port, "/readyz") in (503, 0), "not ready, or closed"
        assert process.wait(timeout=SECONDS) == 70
        assert status_of(port, "/readyz") == 0
