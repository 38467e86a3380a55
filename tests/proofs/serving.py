"""Responses under load: equal to those of single requests; captions per second compared with the Captioner and LitServe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

from model import Captioner, choose_policy, prepare
from service.http.dialects.native.json_body import result_json
from service.http.json_encoding import encode_json
from tests.helpers import wait_until
from tests.proofs.load import ROOT, Figures, Load, descendants, load, post, scene_images
from tests.test_process import running, status_of

OPTIONS = ["", "?strategy=greedy", "?num_beams=5", "?strategy=sample&seed=7", "?num_beams=2&num_return_sequences=2&max_words=8"]
BATCH_SIZE = 8  # images, for the service, the Captioner and LitServe alike


def equal_responses(seconds: float) -> Figures:
    """64 clients of mixed options: every response is the one that its request gets alone."""
    files = scene_images(8)
    with running(SIGHTLINE_DTYPE="float32", SIGHTLINE_THREADS="2") as (port, _, _):
        keys = [(file, option) for file in range(8) for option in range(len(OPTIONS))]
        alone = {key: _values(post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])[1]) for key in keys}

        def call(_: int, rng: random.Random) -> bool | int:
            key = (rng.randrange(8), rng.randrange(len(OPTIONS)))
            status, body = post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])[:2]
            return status if status != 200 else _equal(_values(body), alone[key])

        measured = load(64, seconds, call)
    names = {True: "equal", False: "other"}
    results = Counter(names[result] if isinstance(result, bool) else str(result) for result in measured.results)
    return {"requests": len(measured.calls), "responses": dict(results), "p50, p95, p99 in s": measured.percentiles(),
            "met": set(results) == {"equal"}}  # fmt: skip


def _values(body: bytes) -> list[tuple[str, float, list[list[float]]]]:
    """Return text, log-probability and maps of each caption."""
    captions = json.loads(body)["captions"]
    maps = [[word["map"]["values"] for word in caption["words"]] for caption in captions]
    return [(caption["text"], caption["log_probability"], values) for caption, values in zip(captions, maps, strict=True)]


def _equal(one: list[tuple[str, float, list[list[float]]]], other: list[tuple[str, float, list[list[float]]]]) -> bool:
    """Equal texts, log-probabilities and maps within 1e-4; captions whose scores are that close may swap ranks."""
    are_close = all(abs(a[1] - b[1]) < 1e-4 for a, b in zip(one, other, strict=True))
    if not are_close or sorted(a[0] for a in one) != sorted(b[0] for b in other):
        return False
    maps = {text: values for text, _, values in other}
    pairs = [pair for text, _, values in one for pair in zip(values, maps[text], strict=True)]
    return all(abs(a - b) < 1e-4 for values, expected in pairs for a, b in zip(values, expected, strict=True))


def batching(seconds: float) -> Figures:
    """Captions per second of 1 and 32 clients, with encoder batches of four and eight, and of the Captioner in eights."""
    files = scene_images(16)
    rates: dict[tuple[int, int], float] = {}
    cores = []
    for batch_size in (4, BATCH_SIZE):
        settings = {"SIGHTLINE_DTYPE": "auto", "SIGHTLINE_THREADS": "0", "SIGHTLINE_ENCODE_BATCH_SIZE": str(batch_size)}
        with running(**settings) as (port, _, _):
            call = lambda number, rng: post(port, "/v1/captions", files[rng.randrange(16)])[0]  # noqa: E731
            load(8, 3, call)
            for clients in (1, 32):
                measured = load(clients, seconds, call)
                assert set(measured.results) == {200}
                rates[batch_size, clients] = measured.rate
                cores.append(measured.cores)
        if batch_size == 4:
            direct = [_captioner_rate(files, seconds / 2)]
    direct.append(_captioner_rate(files, seconds / 2))
    mean = sum(direct) / 2
    return {
        "captions per second of 1 and 32 clients": [round(rates[4, clients], 1) for clients in (1, 32)],
        "32 over 1": round(rates[4, 32] / rates[4, 1], 2),
        "with eight images per encoder call": round(rates[BATCH_SIZE, 32], 1),
        "of the Captioner in batches of eight, before and after": [round(rate, 1) for rate in direct],
        "shares of that": [round(rates[4, 32] / mean, 2), round(rates[BATCH_SIZE, 32] / mean, 2)],
        "load generator's cores": max(cores),
        "met": rates[4, 32] >= 3 * rates[4, 1] and rates[4, 32] >= 0.7 * mean and rates[BATCH_SIZE, 32] >= 0.85 * mean,
    }


def _captioner_rate(files: list[bytes], seconds: float) -> float:
    """Return captions per second of the Captioner for the same bytes: decoding, maps and JSON included."""
    choose_policy().apply()
    captioner, count, started = Captioner.load(), 0, time.monotonic()
    while time.monotonic() - started < seconds:
        views = [prepare(files[(count + index) % 16], captioner.image_config) for index in range(BATCH_SIZE)]
        for view, result in zip(views, captioner.caption(views), strict=True):
            encode_json(result_json("caption", "default", "en", view, result, None))
        count += BATCH_SIZE
    return count / (time.monotonic() - started)


def compared_with_litserve(seconds: float) -> Figures:
    """64 clients of the same Captioner, batch, threads and images, in turns: this service, LitServe, and both again."""
    files, loads = scene_images(16), dict[str, list[Load]]()
    for _ in range(2):
        settings = {"SIGHTLINE_DTYPE": "auto", "SIGHTLINE_THREADS": "2", "SIGHTLINE_ENCODE_BATCH_SIZE": str(BATCH_SIZE),
                    "SIGHTLINE_DEADLINE_SECONDS": "60"}  # fmt: skip
        with running(**settings) as (port, _, _):
            loads.setdefault("service", []).append(_json_load(port, "/v1/captions", files, seconds))
        with litserve("captions") as (port, _):
            loads.setdefault("LitServe", []).append(_json_load(port, "/predict", files, seconds))
    rates = {
        name: [round(sum(status == 200 for status in run.results) / run.seconds, 1) for run in runs]
        for name, runs in loads.items()
    }
    latencies = {name: [run.percentiles() for run in runs] for name, runs in loads.items()}
    results = {name: Counter(status for run in runs for status in run.results) for name, runs in loads.items()}
    others = {name: {status: count for status, count in counts.items() if status != 200} for name, counts in results.items()}
    return {
        "settings": f"batches of {BATCH_SIZE}, beam 3, maps and reliance, 2 threads",
        "LitServe's settings": "batch_timeout 10 ms, timeout 90 s",
        "captions per second": rates,
        "p50, p95, p99 in s": latencies,
        "unanswered": {name: statuses for name, statuses in others.items() if statuses},
        "load generator's cores": max(run.cores for runs in loads.values() for run in runs),
        "met": sum(rates["service"]) >= sum(rates["LitServe"])
        and sum(run[2] for run in latencies["service"]) < sum(run[2] for run in latencies["LitServe"]),
    }


def _json_load(port: int, path: str, files: list[bytes], seconds: float) -> Load:
    """Send images in JSON from 64 clients, after a short load of 16."""
    bodies = [json.dumps({"image": base64.b64encode(data).decode()}).encode() for data in files]

    def call(_: int, rng: random.Random) -> int:
        status, body = post(port, path, bodies[rng.randrange(16)], headers={"content-type": "application/json"})[:2]
        assert status != 200 or b'"words"' in body
        return status

    load(16, 4, call)
    return load(64, seconds, call)


@contextlib.contextmanager
def litserve(kind: str) -> Iterator[tuple[int, int]]:
    """Run LitServe with one of peer.py's models; yields its port and process id, and stops what it has started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.proofs.peer", kind, str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip

    def is_healthy() -> bool:
        assert process.poll() is None, "LitServe has ended"
        return status_of(port, "/health") == 200

    try:
        wait_until(is_healthy, seconds=60)
        yield port, process.pid
    finally:
        children = descendants(process.pid)  # LitServe leaves them running on SIGTERM
        for pid in [process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=20)
