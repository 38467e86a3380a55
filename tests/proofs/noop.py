"""What a request costs without a network: CPU milliseconds by part, compared with LitServe without one."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Hashable, Sequence

from PIL import Image

from model import Captioner, CaptionRequest, CaptionResult, ImageView, prepare
from service.workers import ImageWorkers
from tests.proofs.load import Figures, cpu_seconds, descendants, load, scene_images
from tests.proofs.serving import litserve
from tests.test_process import running

_CLIENTS = 8

# The service without its network and, if DECODED is set, without its image workers.
_CODE = """
import os, sys
from service.__main__ import main
from tests.proofs import noop
if __name__ == "__main__":
    noop.remove_network(remove_workers="DECODED" in os.environ)
    sys.exit(main(sys.argv[1:]))
"""


class NoopBatch:
    """A CaptionBatch that finishes every request at once, with the result of one image that was captioned before."""

    result: CaptionResult

    def __init__(self) -> None:
        self._keys: list[Hashable] = []

    @property
    def num_rows(self) -> int:
        return 0

    @property
    def keys(self) -> list[Hashable]:
        return list(self._keys)

    def add(self, keys: Sequence[Hashable], _: Sequence[CaptionRequest]) -> None:
        self._keys += keys

    def remove(self, key: Hashable) -> None:
        self._keys.remove(key)

    def step(self) -> list[Hashable]:
        return list(self._keys)

    def new_words(self, _: Hashable) -> tuple[()]:
        return ()

    def pop_results(self, keys: Sequence[Hashable]) -> list[CaptionResult]:
        for key in keys:
            self._keys.remove(key)
        return [self.result] * len(keys)

    def run(self) -> None:
        return


def remove_network(*, remove_workers: bool) -> None:
    """Replace the network of this process, and the image workers if `remove_workers`."""
    captioner = Captioner.load()
    view = prepare(scene_images(1)[0], captioner.image_config)
    (NoopBatch.result,) = captioner.caption([view])
    Captioner.batch = lambda *_: NoopBatch()  # type: ignore[method-assign, assignment, return-value]
    if remove_workers:

        async def prepared(*_: object) -> tuple[tuple[ImageView, ...], Image.Image | None]:
            return (view,), None

        ImageWorkers.prepare = prepared  # type: ignore[method-assign, assignment]


def parts(seconds: float) -> Figures:
    """CPU milliseconds per request of a rendered JPEG in JSON: HTTP and scheduling, pipe, decoding, JSON; and LitServe's no-op.

    LitServe's reads the body's JSON and responds with a word; HTTP and scheduling read it, decode its base64 and respond with
    a text.
    """
    (data,) = scene_images(1)
    text = {"accept": "text/plain"}  # no maps are written
    body, json_type = json.dumps({"image": base64.b64encode(data).decode()}).encode(), {"content-type": "application/json"}
    complete, workers = _cost(seconds, body, json_type)
    without_pipe, _ = _cost(seconds, body, json_type, DECODED="1")
    plain, _ = _cost(seconds, body, json_type | text, DECODED="1")
    with litserve("noop") as (port, pid):
        peer, _ = _measured([pid, *descendants(pid)], seconds, Caller(port, "/predict", body, json_type))
    return {
        "bytes": len(data),
        "HTTP and scheduling": round(plain, 3),
        "JSON": round(without_pipe - plain, 3),
        "pipe": round(complete - without_pipe, 3),
        "decoding, in its process": round(workers, 3),
        "LitServe's no-op": round(peer, 3),
        "HTTP and scheduling over LitServe's": round(plain / peer, 2),
        "met": plain <= peer / 5,
    }


def _cost(seconds: float, data: bytes, headers: dict[str, str], **settings: str) -> tuple[float, float]:
    """Return the CPU milliseconds per request of the service's process, and of its image workers."""
    with running(code=_CODE, **settings) as (port, process, _):
        return _measured([process.pid], seconds, Caller(port, "/v1/captions", data, headers), descendants(process.pid))


def _measured(pids: list[int], seconds: float, call: Caller, others: Sequence[int] = ()) -> tuple[float, float]:
    """Return the CPU milliseconds per request of processes, and of other processes."""
    load(_CLIENTS, 1, call)
    before, before_others = sum(map(cpu_seconds, pids)), sum(map(cpu_seconds, others))
    measured = load(_CLIENTS, seconds, call)
    assert set(measured.results) == {200}
    used, used_others = sum(map(cpu_seconds, pids)) - before, sum(map(cpu_seconds, others)) - before_others
    return 1e3 * used / len(measured.calls), 1e3 * used_others / len(measured.calls)


class Caller:
    """Clients that repeat one request, each over a connection that it keeps."""

    def __init__(self, port: int, path: str, data: bytes, headers: dict[str, str]) -> None:
        self._request = ("POST", path, data, headers)
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(_CLIENTS)]

    def __call__(self, number: int, _: random.Random) -> int:
        self._connections[number].request(*self._request)
        response = self._connections[number].getresponse()
        response.read()
        return response.status
