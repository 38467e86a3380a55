"""Keys, rate limits and headers, as pure ASGI: a middleware that wraps requests would hide a client that leaves.

Keys are compared as digests, all of them, in a time that does not depend on them; none is logged or kept in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model import ConfigError
from service.errors import Problem, problem_response
from service.metrics import Metrics

_GUARDED = "/v1/"
_ANSWERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_GUARDED_ANSWERS = [
    *_ANSWERS,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
]
_LOADING = re.compile(r"^/v1/models/[^/]+/load/?$")
_HEADERS = ("x-api-key", "ocp-apim-subscription-key")
_REMEMBERED = 10_000  # clients whose rate is counted


def read_keys(path: str, setting: str = "keys_file") -> frozenset[bytes]:
    """Return the digests of the keys in a file, one a line; # begins a comment. Raises ConfigError; "" is no keys."""
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting} is {path!r}, which cannot be read ({error}); it needs a key a line") from error
    keys = [line.partition("#")[0].strip() for line in lines]
    if not any(keys):
        raise ConfigError(f"{setting} {path!r} holds no key; write one a line, or leave the setting out")
    return frozenset(_digest(key) for key in keys if key)


class Guard:
    """Lets in who has a key, as often as its rate allows, and puts headers on every answer that browsers obey."""

    def __init__(
        self, app: ASGIApp, *, keys: frozenset[bytes], admin_keys: frozenset[bytes], requests_per_minute: int, metrics: Metrics
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._admin_keys = admin_keys  # nothing is loaded where there are none
        self._rates = Rates(requests_per_minute) if requests_per_minute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = _GUARDED_ANSWERS if path.startswith(_GUARDED) else _ANSWERS
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        if path.startswith(_GUARDED):
            try:
                self._check(scope)
            except Problem as problem:
                self._metrics.rejected.labels(problem.code).inc()
                await problem_response(Request(scope), problem)(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises Problem (401, 429)."""
        key = sent_key(Headers(scope=scope))
        keys = self._admin_keys if self._admin_keys and _LOADING.match(scope["path"]) else self._keys
        if keys:
            bearer = {"WWW-Authenticate": "Bearer"}
            if not key:
                detail = "this service needs a key; send it as Authorization: Bearer, or as x-api-key"
                raise Problem("missing_key", detail, headers=bearer)
            # All are compared: how long it takes tells nothing.
            if not sum(hmac.compare_digest(_digest(key), known) for known in keys):
                raise Problem("wrong_key", "the key is not known here; ask whoever runs the service", headers=bearer)
        if self._rates is not None and scope["method"] == "POST":
            client = _digest(key) if keys else (scope.get("client") or ("",))[0].encode()
            if wait := self._rates.wait(client):
                detail = f"this client has sent more than its share; try again in {wait} s"
                raise Problem("rate_limited", detail, headers={"Retry-After": str(wait)})


class Rates:
    """A token bucket a client: so many requests a minute, all at once if they like."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def wait(self, client: bytes, now: float | None = None) -> int:
        """Take a token of a client; returns 0, or in how many seconds there will be one."""
        now = time.monotonic() if now is None else now
        tokens, then = self._left.pop(client, (float(self._a_minute), now))
        tokens = min(float(self._a_minute), tokens + (now - then) * self._a_minute / 60)
        allowed = tokens >= 1
        self._left[client] = (tokens - allowed, now)
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) * 60 / self._a_minute))


def sent_key(headers: Headers) -> str:
    """Return the key that a request brings, "" where it brings none."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return next((headers[name].strip() for name in _HEADERS if headers.get(name, "").strip()), "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
