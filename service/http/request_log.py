"""Request ids, metrics and the log line of every request, as pure ASGI middleware."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

_LOG = logging.getLogger("service.app")
_TRACE = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")  # W3C Trace Context
_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,128}$")


class RequestLogMiddleware:
    """Gives every request an id, taken from x-request-id or generated; every response has it, and the log names it.

    Pure ASGI: a middleware that wraps requests and responses would hide a client that disconnects.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, known_paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._known_paths = known_paths  # labels of metrics; all other paths share one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        sent = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _REQUEST_ID.match(sent) else secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            route = scope.get("route")  # of a path with parameters
            endpoint = scope["path"] if scope["path"] in self._known_paths else getattr(route, "path", "other")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.request_seconds.labels(endpoint).observe(seconds)
            fields = {
                "id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1e3 * seconds, 1),
            }
            trace = headers.get(b"traceparent", b"").decode("latin-1")
            if _TRACE.match(trace):
                fields["trace"] = trace
            _LOG.info("request %s", " ".join(f"{name}={value!r}" for name, value in fields.items()), extra={"fields": fields})
