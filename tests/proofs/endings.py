"""How the process ends and restarts: SIGTERM, failures of the model thread, SIGKILL; and checkpoints swapped under load."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from model import DEFAULT_CHECKPOINT
from tests.helpers import wait_until
from tests.proofs.load import LOST, REFUSED, ROOT, Figures, descendants, load, percentiles, post, scene_images
from tests.test_process import running, status_of

_TIMES = 20

# The service with an encoder whose 20th call prints the time and then does what `failure` says.
_BROKEN = """
import sys, threading, time
from model import CaptionNetwork
from service.__main__ import main
original, calls = CaptionNetwork.encode, []
def encode(self, pixels):
    calls.append(len(pixels))
    if len(calls) == 20:
        print("BROKEN", time.time(), file=sys.stderr, flush=True)
        {failure}
    return original(self, pixels)
CaptionNetwork.encode = encode
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def sigterm(_seconds: float) -> Figures:
    """Twenty times under load: every accepted request answered, readiness false before the listener closes, exit 0."""
    files, statuses, num_unready, durations, exits = scene_images(4), Counter[str](), 0, list[float](), Counter[int]()
    for _ in range(_TIMES):
        received, exit_status, is_unready, duration = _terminated_under_load(files)
        statuses.update("lost" if status == LOST else str(status) for status in received)
        exits[exit_status] += 1
        num_unready += is_unready
        durations.append(duration)
    return {
        "responses": dict(statuses), "readiness false while listening": num_unready, "exit statuses": dict(exits),
        "longest end in s, of which 1 is the delay": round(max(durations), 1),
        "met": set(statuses) == {"200"} and num_unready == _TIMES and set(exits) == {0} and max(durations) < 12,
    }  # fmt: skip


def _terminated_under_load(files: list[bytes]) -> tuple[list[int], int, bool, float]:
    """Return the statuses of responses, the exit status, whether readiness was false while listening, and seconds to the end."""
    received = list[int]()
    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_DRAIN_SECONDS="1") as (port, process, _):

        def client(number: int) -> None:
            while (status := post(port, "/v1/captions", files[number % 4])[0]) != REFUSED:
                received.append(status)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(received) >= 16, seconds=60)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        wait_until(lambda: status_of(port, "/readyz") != 200)
        is_unready = status_of(port, "/readyz") == 503 and status_of(port, "/livez") == 200
        exit_status = process.wait(timeout=30)
        duration = time.monotonic() - started
        for thread in threads:
            thread.join()
    return received, exit_status, is_unready, duration


def failures(_seconds: float) -> Figures:
    """An exception in the model thread, a call that hangs, SIGKILL: readiness false within 1 s; a loop serves again."""
    exception, after_exception = _unready_after('raise SystemExit("raised in the model thread")')
    hang, after_hang = _unready_after("threading.Event().wait()", SIGHTLINE_WATCHDOG_SECONDS="3")
    refused, restarted, num_left = _killed_under_a_loop()
    is_met = exception < 1 and hang - 3 < 1 and refused < 0.5 and not num_left
    return {
        "readiness false after an exception, in s": round(exception, 2),
        "after the watchdog's 3 s of a call that hangs": round(hang - 3, 2),
        "responses then": [dict(after_exception), dict(after_hang)],
        "the port refuses after SIGKILL, in s": round(refused, 2),
        "serving again, in s": round(restarted, 1),
        "image workers left": num_left,
        "met": is_met and set(after_exception | after_hang) <= {"200", "503", "refused"},
    }


def _unready_after(failure: str, **settings: str) -> tuple[float, Counter[str]]:
    """Return the seconds from the failure to readiness being false, and the statuses of requests in the meantime."""
    files, statuses = scene_images(4), Counter[str]()
    with running(code=_BROKEN.format(failure=failure), SIGHTLINE_THREADS="2", **settings) as (port, process, log):
        stopped = threading.Event()

        def client(number: int) -> None:
            while not stopped.is_set():
                status = post(port, "/v1/captions?strategy=greedy", files[number % 4])[0]
                statuses["refused" if status == REFUSED else "lost" if status == LOST else str(status)] += 1
                if status != 200:
                    return

        threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: status_of(port, "/readyz") != 200, seconds=60)
        unready = time.time()
        stopped.set()
        for thread in threads:
            thread.join()
        assert process.wait(timeout=20) == 70
    (line,) = [line for line in log if line.startswith("BROKEN")]
    return unready - float(line.split()[1]), statuses


def _killed_under_a_loop() -> tuple[float, float, int]:
    """Return the seconds from SIGKILL to a port that refuses and to a caption, and the number of image workers left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ended, processes = threading.Event(), list[subprocess.Popen[bytes]]()

    def supervise() -> None:
        while not ended.is_set():
            command = [sys.executable, "-m", "service", "--port", str(port)]
            processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
            processes[-1].wait()

    loop = threading.Thread(target=supervise)
    loop.start()
    try:
        wait_until(lambda: status_of(port, "/readyz") == 200, seconds=60)
        children = descendants(processes[-1].pid)
        killed = time.monotonic()
        os.kill(processes[-1].pid, signal.SIGKILL)
        wait_until(lambda: status_of(port, "/readyz") == 0, seconds=60)
        refused = time.monotonic() - killed
        wait_until(lambda: post(port, "/v1/captions", scene_images(1)[0])[0] == 200, seconds=60)
        restarted = time.monotonic() - killed
        return refused, restarted, sum(_is_running(pid) for pid in children)
    finally:
        ended.set()
        os.kill(processes[-1].pid, signal.SIGTERM)
        loop.join()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def swaps(seconds: float) -> Figures:
    """The checkpoint swapped under the load of 16 clients: no request lost."""
    files, durations = scene_images(8), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "keys").write_text("a key\n")
        with running(
            SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_ADMIN_KEYS_FILE=f"{folder}/keys"
        ) as (port, _, _):  # fmt: skip
            ended, statuses = threading.Event(), Counter[int]()

            def swap() -> None:
                body = b'{"checkpoint": "%s"}' % str(DEFAULT_CHECKPOINT).encode()
                while not ended.is_set():
                    started = time.monotonic()
                    statuses[post(port, "/v1/models/default/load", body, headers={"x-api-key": "a key"})[0]] += 1
                    durations.append(time.monotonic() - started)

            swapping = threading.Thread(target=swap)
            swapping.start()

            def call(_: int, rng: random.Random) -> int:
                return post(port, "/v1/captions", files[rng.randrange(8)])[0]

            measured = load(16, seconds, call)
            ended.set()
            swapping.join()
    responses = Counter(map(str, measured.results))
    return {
        "swaps": dict(statuses), "a swap's p50, p95, p99 in s": percentiles(durations), "responses": dict(responses),
        "p50, p95, p99 in s": measured.percentiles(),
        "met": set(statuses) == {200} and sum(statuses.values()) >= 3 and set(responses) == {"200"},
    }  # fmt: skip
