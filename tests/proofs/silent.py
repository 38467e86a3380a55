"""Clients of one address that announce large bodies and do not send them, while clients of another address are served."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter

from tests.proofs.load import Figures, load, post, scene_images
from tests.test_process import running

_ATTACKER = "127.0.0.2"
_ANNOUNCED = 20_000_000  # bytes
_SILENT, _STALLED = 400, 40  # connections that send no byte, and that stop before the end of the body


def silent_senders(seconds: float) -> Figures:
    """440 connections, renewed when they are closed: the other clients get their captions, about as fast as before."""
    files, ended, counts = scene_images(8), threading.Event(), Counter[str]()

    def call(_: int, rng: random.Random) -> int:
        return post(port, "/v1/captions", files[rng.randrange(8)])[0]

    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0") as (port, _, __):
        load(4, seconds / 6, call)
        before = load(4, seconds / 2, call)
        attackers = [
            threading.Thread(target=_attack, args=(port, number < _STALLED, counts, ended), daemon=True)
            for number in range(_SILENT + _STALLED)
        ]
        for attacker in attackers:
            attacker.start()
        during = load(4, seconds, call)
        ended.set()
        for attacker in attackers:
            attacker.join(timeout=10)
    results = Counter(str(result) for result in during.results)
    return {
        "announced by each attacker, bytes": _ANNOUNCED,
        "attacking connections": dict(counts),
        "responses to others": dict(results),
        "p50, p95, p99 in s of others before": before.percentiles(),
        "p50, p95, p99 in s of others during the attack": during.percentiles(),
        "met": set(results) == {"200"} and during.percentiles()[2] < 4 * before.percentiles()[2] + 1,
    }


def _attack(port: int, is_stalled: bool, counts: Counter[str], ended: threading.Event) -> None:
    """Announce a body, send nothing or most of it, and wait to be disconnected; then again."""
    head = f"POST /v1/captions HTTP/1.1\r\nhost: x\r\ncontent-length: {_ANNOUNCED}\r\n\r\n".encode()
    while not ended.is_set():
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(_ATTACKER, 0)) as connection,
        ):
            connection.sendall(head)
            if is_stalled:
                connection.sendall(b"\xff\xd8\xff" + bytes(_ANNOUNCED - 1000))
            counts["opened"] += 1
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1000):
                        break
            counts["closed by the service"] += 1
        ended.wait(0.2)
