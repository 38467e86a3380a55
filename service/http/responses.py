"""How responses are sent: as JSON, compressed if accepted; large ones keep their ticket until the client has read them."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from model import Timing
from service.http.json_encoding import encode_json
from service.runtime import Engine

_FEW_VALUES = 10_000  # some 0.3 ms: switching threads takes longer
_MIN_COMPRESSED = 2_000  # bytes
_SLICE = 1 << 20  # bytes


async def json_response(
    engine: Engine,
    request: Request,
    num_values: int,
    make_body: Callable[[], dict[str, Any] | list[Any]],
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a body with `num_values` values in its maps as JSON. Large bodies are built and encoded outside the loop."""
    compress = _accepts_gzip(request.headers.get("accept-encoding", ""))

    def build() -> Response:
        body, all_headers = encode_json(make_body()), dict(headers or {}) | {"vary": "accept-encoding"}
        if compress and len(body) > _MIN_COMPRESSED:
            body = gzip.compress(body, 1)  # 9 ms per megabyte, to 38 % of its size: higher levels gain little
            all_headers["content-encoding"] = "gzip"
        return Response(body, media_type="application/json", headers=all_headers)

    return build() if num_values <= _FEW_VALUES else await engine.in_writer(build)


def timing_header(timing: Timing) -> dict[str, str]:
    """Return the header server-timing: milliseconds by part."""
    parts = (f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in timing.as_dict().items())
    return {"server-timing": ", ".join(parts)}


def hold_until_sent(response: Response, stack: contextlib.ExitStack) -> Response:
    """Return a response that closes `stack` when it is sent or its client has disconnected."""
    return _HeldResponse(response, stack.pop_all())


class _HeldResponse(Response):
    def __init__(self, response: Response, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._response = response
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_slices(message: Message) -> None:
            body = message.get("body", b"")
            if len(body) > _SLICE:
                # The server waits for a slow reader before the next message, not after the last one; and the time of a
                # reader, the setting write_seconds, is that of one slice.
                for start in range(0, len(body), _SLICE):
                    await send({**message, "body": body[start : start + _SLICE], "more_body": True})
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._response(scope, receive, send_in_slices)
        finally:
            self._stack.close()


def _accepts_gzip(accepted: str) -> bool:
    weights = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.replace(" ", "")
    quality = weights.get("gzip", weights.get("*"))
    return quality is not None and quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
