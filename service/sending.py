"""How answers leave: as JSON, compressed where that is asked for, and holding their place until the client has them."""

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

_LEAST_COMPRESSED = 2_000  # bytes
_LARGE = 65_536  # bytes that the connection's buffers take at once


async def json_response(
    engine: Engine, request: Request, made: Callable[[], dict[str, Any]], headers: dict[str, str] | None = None
) -> Response:
    """Return what `made` returns as JSON; all of it is done outside of the loop."""
    compressed = _takes_gzip(request.headers.get("accept-encoding", ""))

    def work() -> Response:
        body, told = encode(made()), dict(headers or {}) | {"vary": "accept-encoding"}
        if compressed and len(body) > _LEAST_COMPRESSED:
            body = gzip.compress(body, 1)  # 9 ms a megabyte, and 38 % of it is left: higher levels gain little
            told["content-encoding"] = "gzip"
        return Response(body, media_type="application/json", headers=told)

    return await engine.in_writer(work)


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
            if message["type"] == "http.response.body" and len(message.get("body", b"")) > _LARGE:
                # The server waits for a slow reader before the next message, not behind the last one.
                await send({**message, "more_body": True})
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._response(scope, receive, send_and_wait)
        finally:
            self._places.close()


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
