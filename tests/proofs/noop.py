"""What a request costs without a network: CPU milliseconds by part, beside LitServe without one."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Hashable, Sequence

from PIL import Image

from model import Captioner, CaptionRequest, CaptionResult, ImageView
from tests.proofs.load import Figures, descendants, load, pictures, processor_seconds
from tests.proofs.serving import litserve
from tests.test_process import running

_CLIENTS = 8

# The service as it is, but for the network, and where DECODED is set, the decoders.
_CODE = """
import os, sys
from service.__main__ import main
from tests.proofs import noop
if __name__ == "__main__":
    noop.without_network(decoded="DECODED" in os.environ)
    sys.exit(main(sys.argv[1:]))
"""


class NoopBatch:
    """A CaptionBatch that finds at once what it is given: the answer to one picture, captioned before."""

    known: CaptionResult

    def __init__(self, _: Captioner) -> None:
        self._keys: list[Hashable] = []

    @property
    def rows(self) -> int:
        return 0

    def add(self, keys: Sequence[Hashable], _: Sequence[CaptionRequest]) -> None:
        self._keys += keys

    def remove(self, key: Hashable) -> None:
        self._keys.remove(key)

    def step(self) -> list[Hashable]:
        return list(self._keys)

    def fresh_words(self, _: Hashable) -> tuple[()]:
        return ()

    def read(self, keys: Sequence[Hashable]) -> list[CaptionResult]:
        for key in keys:
            self._keys.remove(key)
        return [self.known] * len(keys)


def without_network(*, decoded: bool) -> None:
    """Take the network out of this process, and the decoders where `decoded`."""
    from model import prepare
    from service import scheduler, workers

    captioner = Captioner.load()
    view = prepare(pictures(1)[0], captioner.image_config)
    (NoopBatch.known,) = captioner.caption([view])
    scheduler.CaptionBatch = NoopBatch  # type: ignore[misc, assignment]
    if decoded:

        async def decode(*_: object) -> tuple[ImageView, Image.Image | None]:
            return view, None

        workers.ImageWorkers.decode = decode  # type: ignore[method-assign, assignment]


def parts(seconds: float) -> Figures:
    """CPU milliseconds a request of a drawn JPEG in JSON: HTTP and scheduling, pipe, decoding, JSON; and LitServe's no-op.

    LitServe's reads the body's JSON and answers a word; HTTP and scheduling read it, decode its base64 and answer a text.
    """
    (data,) = pictures(1)
    text = {"accept": "text/plain"}  # no maps are written
    body, kind = json.dumps({"image": base64.b64encode(data).decode()}).encode(), {"content-type": "application/json"}
    whole, decoders = _cost(seconds, body, kind)
    without_pipe, _ = _cost(seconds, body, kind, DECODED="1")
    plain, _ = _cost(seconds, body, kind | text, DECODED="1")
    with litserve("noop") as (port, pid):
        theirs, _ = _measured([pid, *descendants(pid)], seconds, Caller(port, "/predict", body, kind))
    return {
        "bytes": len(data),
        "HTTP and scheduling": round(plain, 3),
        "JSON": round(without_pipe - plain, 3),
        "pipe": round(whole - without_pipe, 3),
        "decoding, in its process": round(decoders, 3),
        "LitServe's no-op": round(theirs, 3),
        "HTTP and scheduling over LitServe's": round(plain / theirs, 2),
        "met": plain <= theirs / 5,
    }


def _cost(seconds: float, data: bytes, headers: dict[str, str], **settings: str) -> tuple[float, float]:
    """Return the CPU milliseconds a request of the service's process, and of its decoders."""
    with running(code=_CODE, **settings) as (port, process, _):
        return _measured([process.pid], seconds, Caller(port, "/v1/captions", data, headers), descendants(process.pid))


def _measured(pids: list[int], seconds: float, call: Caller, others: Sequence[int] = ()) -> tuple[float, float]:
    """Return the CPU milliseconds a request that processes take, and that others do."""
    load(_CLIENTS, 1, call)
    before, before_others = sum(map(processor_seconds, pids)), sum(map(processor_seconds, others))
    found = load(_CLIENTS, seconds, call)
    assert set(found.results) == {200}
    took = sum(map(processor_seconds, pids)) - before
    return 1e3 * took / len(found.calls), 1e3 * (sum(map(processor_seconds, others)) - before_others) / len(found.calls)


class Caller:
    """Clients that send the same again and again, each over a connection that it keeps."""

    def __init__(self, port: int, path: str, data: bytes, headers: dict[str, str]) -> None:
        self._request = ("POST", path, data, headers)
        self._lines = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(_CLIENTS)]

    def __call__(self, number: int, _: random.Random) -> int:
        self._lines[number].request(*self._request)
        answer = self._lines[number].getresponse()
        answer.read()
        return answer.status
