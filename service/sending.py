"""How answers leave: as JSON, compressed where that is asked for, and large ones holding their place until they are read."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.answers import encode
from service.engine import Engine

_FEW_VALUES = 10_000  # some 0.3 ms: going to another thread and back takes longer
_LEAST_COMPRESSED = 2_000  # bytes
_SLICE = 1 << 20  # bytes


async def json_response(
    engine: Engine, request: Request, values: int, made: Callable[[], dict[str, Any]], headers: dict[str, str] | None = None
) -> Response:
    """Return what `made` returns as JSON, with so many values in its maps. Large answers are made outside of the loop."""
    compressed = _takes_gzip(request.headers.get("accept-encoding", ""))

    def work() -> Response:
        body, told = encode(made()), dict(headers or {}) | {"vary": "accept-encoding"}
        if compressed and len(body) > _LEAST_COMPRESSED:
            body = gzip.compress(body, 1)  # 9 ms a megabyte, and 38 % of it is left: higher levels gain little
            told["content-encoding"] = "gzip"
        return Response(body, media_type="application/json", headers=told)

    return work() if values <= _FEW_VALUES else await engine.in_writer(work)


def timing_header(timing: dict[str, float]) -> dict[str, str]:
    """Return milliseconds by part as the header server-timing."""
    return {"server-timing": ", ".join(f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in timing.items())}


def held(response: Response, stack: contextlib.ExitStack) -> Response:
    """Return a response that keeps what `stack` holds until it is sent, or its client goes away."""
    return _Held(response, stack.pop_all())


class _Held(Response):
    def __init__(self, response: Response, places: contextlib.ExitStack) -> None:
        super().__init__()
        self._response = response
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_wait(message: Message) -> None:
            body = message.get("body", b"")
            if len(body) > _SLICE:
                # The server waits for a slow reader before the next message, not behind the last one; and a reader's time,
                # the setting write_seconds, is one slice's.
                for start in range(0, len(body), _SLICE):
                    await send({**message, "body": body[start : start + _SLICE], "more_body": True})
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._response(scope, receive, send_and_wait)
        finally:
            self._places.close()


def _takes_gzip(accepted: str) -> bool:
    weights = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.replace(" ", "")
    found = weights.get("gzip", weights.get("*"))
    return found is not None and found not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
