"""Answers under load: equal to those of single requests, and how many a second beside the Captioner and LitServe."""

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

from model import Captioner, prepare, use_threads
from service.http.dialects.native.json_body import answer_json, encode
from tests.proofs.load import ROOT, Figures, Load, descendants, load, pictures, post
from tests.test_process import running, status_of

OPTIONS = ["", "?strategy=greedy", "?num_beams=5", "?strategy=sample&seed=7", "?num_beams=2&num_return_sequences=2&max_words=8"]
AT_ONCE = 8  # pictures of a batch, where all have the same


def equal_answers(seconds: float) -> Figures:
    """64 clients of mixed options: every answer is the one that its request gets alone."""
    files = pictures(8)
    with running(SIGHTLINE_DTYPE="float32", SIGHTLINE_THREADS="2") as (port, _, _):
        every = [(file, option) for file in range(8) for option in range(len(OPTIONS))]
        alone = {key: _plain(post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])[1]) for key in every}

        def call(_: int, dice: random.Random) -> bool | int:
            key = (dice.randrange(8), dice.randrange(len(OPTIONS)))
            status, body, _ = post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])
            return status if status != 200 else _same(_plain(body), alone[key])

        found = load(64, seconds, call)
    kinds = Counter("equal" if result is True else "other" if result is False else str(result) for result in found.results)
    return {"requests": len(found.calls), "answers": dict(kinds), "p50, p95, p99 in s": found.percentiles(),
            "met": set(kinds) == {"equal"}}  # fmt: skip


def _plain(body: bytes) -> list[tuple[str, float, list[list[float]]]]:
    captions = json.loads(body)["captions"]
    return [(one["text"], one["log_probability"], [word["map"]["values"] for word in one["words"]]) for one in captions]


def _same(one: list[tuple[str, float, list[list[float]]]], other: list[tuple[str, float, list[list[float]]]]) -> bool:
    """Equal texts, log-probabilities and maps within 1e-4; captions that score within that may change places."""
    close = all(abs(a[1] - b[1]) < 1e-4 for a, b in zip(one, other, strict=True))
    if not close or sorted(a[0] for a in one) != sorted(b[0] for b in other):
        return False
    maps = {text: values for text, _, values in other}
    pairs = [pair for text, _, values in one for pair in zip(values, maps[text], strict=True)]
    return all(abs(a - b) < 1e-4 for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def batching(seconds: float) -> Figures:
    """Captions a second of 1 and 32 clients, at the default encoder batch and at eight, and of the Captioner in eights."""
    files = pictures(16)
    rates: dict[tuple[int, int], float] = {}
    cores = []
    for at_once in (4, AT_ONCE):
        settings = {"SIGHTLINE_DTYPE": "auto", "SIGHTLINE_THREADS": "0", "SIGHTLINE_ENCODER_IMAGES": str(at_once)}
        with running(**settings) as (port, _, _):
            call = lambda number, dice: post(port, "/v1/captions", files[dice.randrange(16)])[0]  # noqa: E731
            load(8, 3, call)
            for clients in (1, 32):
                found = load(clients, seconds, call)
                assert set(found.results) == {200}
                rates[at_once, clients] = found.rate
                cores.append(found.cores)
        if at_once == 4:
            direct = [_captioner_rate(files, seconds / 2)]
    direct.append(_captioner_rate(files, seconds / 2))
    alone = sum(direct) / 2
    return {
        "captions a second of 1 and 32 clients": [round(rates[4, clients], 1) for clients in (1, 32)],
        "32 over 1": round(rates[4, 32] / rates[4, 1], 2),
        "with eight pictures an encoder call": round(rates[AT_ONCE, 32], 1),
        "of the Captioner in batches of eight, before and after": [round(rate, 1) for rate in direct],
        "shares of that": [round(rates[4, 32] / alone, 2), round(rates[AT_ONCE, 32] / alone, 2)],
        "load generator's cores": max(cores),
        "met": rates[4, 32] >= 3 * rates[4, 1] and rates[4, 32] >= 0.7 * alone and rates[AT_ONCE, 32] >= 0.85 * alone,
    }


def _captioner_rate(files: list[bytes], seconds: float) -> float:
    """Return captions a second of the Captioner fed the same bytes: decoding, maps and JSON included."""
    use_threads()
    captioner, count, started = Captioner.load(), 0, time.monotonic()
    while time.monotonic() - started < seconds:
        views = [prepare(files[(count + at) % 16], captioner.image_config) for at in range(AT_ONCE)]
        for view, found in zip(views, captioner.caption(views), strict=True):
            encode(answer_json("caption", "default", "en", view, found, None, {}))
        count += AT_ONCE
    return count / (time.monotonic() - started)


def beside_litserve(seconds: float) -> Figures:
    """64 clients of the same Captioner, batch, threads and pictures, in turns: this service, LitServe, and both again."""
    files, loads = pictures(16), dict[str, list[Load]]()
    for _ in range(2):
        settings = {"SIGHTLINE_DTYPE": "auto", "SIGHTLINE_THREADS": "2", "SIGHTLINE_ENCODER_IMAGES": str(AT_ONCE),
                    "SIGHTLINE_DEADLINE_SECONDS": "60"}  # fmt: skip
        with running(**settings) as (port, _, _):
            loads.setdefault("service", []).append(_photographs(port, "/v1/captions", files, seconds))
        with litserve("captions") as (port, _):
            loads.setdefault("LitServe", []).append(_photographs(port, "/predict", files, seconds))
    rates = {name: [round(sum(r == 200 for r in one.results) / one.seconds, 1) for one in two] for name, two in loads.items()}
    latencies = {name: [one.percentiles() for one in two] for name, two in loads.items()}
    others = {name: dict(Counter(r for one in two for r in one.results if r != 200)) for name, two in loads.items()}
    return {
        "settings": f"batches of {AT_ONCE}, beam 3, maps and reliance, 2 threads; LitServe's batch_timeout 10 ms, timeout 90 s",
        "captions a second": rates,
        "p50, p95, p99 in s": latencies,
        "not answered": {name: told for name, told in others.items() if told},
        "load generator's cores": max(one.cores for two in loads.values() for one in two),
        "met": sum(rates["service"]) >= sum(rates["LitServe"])
        and sum(one[2] for one in latencies["service"]) < sum(one[2] for one in latencies["LitServe"]),
    }  # fmt: skip


def _photographs(port: int, path: str, files: list[bytes], seconds: float) -> Load:
    bodies = [json.dumps({"image": base64.b64encode(data).decode()}).encode() for data in files]

    def call(_: int, dice: random.Random) -> int:
        status, body, _ = post(port, path, bodies[dice.randrange(16)], headers={"content-type": "application/json"})
        assert status != 200 or b'"words"' in body
        return status

    load(16, 4, call)
    return load(64, seconds, call)


@contextlib.contextmanager
def litserve(kind: str) -> Iterator[tuple[int, int]]:
    """Run LitServe with one of peer.py's models; yields its port and process, and stops what it has started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.proofs.peer", kind, str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for _ in range(600):
            assert process.poll() is None, "LitServe has ended"
            if status_of(port, "/health") == 200:
                break
            time.sleep(0.1)
        yield port, process.pid
    finally:
        started = descendants(process.pid)  # it leaves children behind on SIGTERM
        for pid in [process.pid, *started]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=20)
