"""How the process ends and comes back: SIGTERM, failures of the model thread, SIGKILL; and checkpoints swapped meanwhile."""

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
from collections.abc import Callable
from pathlib import Path

from model import DEFAULT_CHECKPOINT
from tests.proofs.load import LOST, REFUSED, ROOT, Figures, descendants, load, percentiles, pictures, post
from tests.test_process import running, status_of

_TIMES = 20

# The service as it is, but that its encoder, from the 20th call on, does what `broken` says, and tells when.
_BROKEN = """
import sys, time
from model import Captioner
from service.__main__ import main
original, calls = Captioner.encode, []
def encode(self, views):
    calls.append(len(views))
    if len(calls) == 20:
        print("BROKEN", time.time(), file=sys.stderr, flush=True)
        {broken}
    return original(self, views)
Captioner.encode = encode
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def sigterm(_: float) -> Figures:
    """Twenty times under load: every accepted request answered, readiness false before the listener closes, exit 0."""
    files, statuses, unready, took, ends = pictures(4), Counter[str](), 0, list[float](), Counter[int]()
    for _ in range(_TIMES):
        with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_DRAIN_SECONDS="1") as (port, process, _):
            found = list[int]()

            def client(number: int, port: int = port, found: list[int] = found) -> None:
                while (status := post(port, "/v1/captions", files[number % 4])[0]) != REFUSED:
                    found.append(status)

            threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            time.sleep(0.2)
            unready += status_of(port, "/readyz") == 503 and status_of(port, "/livez") == 200
            ends[process.wait(timeout=30)] += 1
            took.append(time.monotonic() - started)
            for thread in threads:
                thread.join()
            statuses.update("lost" if status == LOST else str(status) for status in found)
    return {
        "answers": dict(statuses), "readiness seen false while listening": unready, "exit statuses": dict(ends),
        "longest end in s, of which 1 is the delay": round(max(took), 1),
        "met": set(statuses) == {"200"} and unready == _TIMES and set(ends) == {0} and max(took) < 12,
    }  # fmt: skip


def failures(_: float) -> Figures:
    """An exception in the model thread, a step that hangs, SIGKILL: readiness false within 1 s; serving again, by a loop."""
    exception, thrown = _unready_after('raise SystemExit("thrown into the model thread")')
    hung, silent = _unready_after("time.sleep(600)", SIGHTLINE_WATCHDOG_SECONDS="3")
    killed, again, left = _killed_under_a_loop()
    return {
        "readiness false after an exception, in s": round(exception, 2),
        "after the watchdog's 3 s of a step that hangs": round(hung - 3, 2),
        "answers then": [dict(thrown), dict(silent)],
        "the port refuses after SIGKILL, in s": round(killed, 2),
        "serving again, in s": round(again, 1),
        "decoders left": left,
        "met": exception < 1 and hung - 3 < 1 and killed < 0.5 and not left and set(thrown | silent) <= {"200", "503", "refused"},
    }


def _unready_after(broken: str, **settings: str) -> tuple[float, Counter[str]]:
    """Return in how many seconds after the failure readiness was seen false, and what requests were answered meanwhile."""
    files, statuses = pictures(4), Counter[str]()
    with running(code=_BROKEN.format(broken=broken), SIGHTLINE_THREADS="2", **settings) as (port, process, said):
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
        end = time.monotonic() + 60
        while status_of(port, "/readyz") == 200 and time.monotonic() < end:
            time.sleep(0.01)
        seen = time.time()
        stopped.set()
        for thread in threads:
            thread.join()
        assert process.wait(timeout=20) == 70
    (told,) = [line for line in said if line.startswith("BROKEN")]
    return seen - float(told.split()[1]), statuses


def _killed_under_a_loop() -> tuple[float, float, int]:
    """Return the seconds from SIGKILL to a port that refuses and to a service that answers, and decoders that are left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ended, started = threading.Event(), list[subprocess.Popen[bytes]]()

    def supervise() -> None:
        while not ended.is_set():
            command = [sys.executable, "-m", "service", "--port", str(port)]
            started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
            started[-1].wait()

    loop = threading.Thread(target=supervise)
    loop.start()
    try:
        _until(lambda: status_of(port, "/readyz") == 200)
        children = descendants(started[-1].pid)
        began = time.monotonic()
        os.kill(started[-1].pid, signal.SIGKILL)
        _until(lambda: status_of(port, "/readyz") == 0, pause=0.005)
        refused = time.monotonic() - began
        _until(lambda: post(port, "/v1/captions", pictures(1)[0])[0] == 200)
        again = time.monotonic() - began
        return refused, again, sum(_runs(pid) for pid in children)
    finally:
        ended.set()
        os.kill(started[-1].pid, signal.SIGTERM)
        loop.join()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(true: Callable[[], bool], pause: float = 0.05) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it took more than 60 s"
        time.sleep(pause)


def swaps(seconds: float) -> Figures:
    """The checkpoint swapped under the load of 16 clients: no request lost."""
    files, times = pictures(8), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "keys").write_text("a key\n")
        with running(
            SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_ADMIN_KEYS_FILE=f"{folder}/keys"
        ) as (port, _, _):  # fmt: skip
            ended, statuses = threading.Event(), Counter[int]()

            def swap() -> None:
                body = b'{"checkpoint": "%s"}' % str(DEFAULT_CHECKPOINT).encode()
                while not ended.is_set():
                    began = time.monotonic()
                    statuses[post(port, "/v1/models/default/load", body, headers={"x-api-key": "a key"})[0]] += 1
                    times.append(time.monotonic() - began)

            swapping = threading.Thread(target=swap)
            swapping.start()

            def call(_: int, dice: random.Random) -> int:
                return post(port, "/v1/captions", files[dice.randrange(8)])[0]

            found = load(16, seconds, call)
            ended.set()
            swapping.join()
    answers = Counter(map(str, found.results))
    return {
        "swaps": dict(statuses), "a swap's p50, p95, p99 in s": percentiles(times), "answers": dict(answers),
        "p50, p95, p99 in s": found.percentiles(),
        "met": set(statuses) == {200} and sum(statuses.values()) >= 3 and set(answers) == {"200"},
    }  # fmt: skip
