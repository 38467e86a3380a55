"""Keys, rate limits and security headers, as pure ASGI middleware: one that wraps requests would hide disconnected clients.

Every path but the probes and the web page needs a key where keys are set. Keys are compared as digests, all of them, in
constant time; none is logged or kept in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model import ConfigError
from service.errors import ServiceError, retry_error
from service.http.docs_page import PAGE_POLICY, is_docs_path
from service.http.page import PAGE_HEADERS, is_page_request
from service.metrics import Metrics

PROBES = frozenset(
    {
        "/livez",
        "/readyz",
        "/health",
        "/healthz",
        "/health-check",
        "/v2/health/live",
        "/v2/health/ready",
    }  # the last three: Cog, KServe
)
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_API_HEADERS = [
    *_HEADERS,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
]
_DOCS_HEADERS = [*_HEADERS, (b"content-security-policy", PAGE_POLICY.encode())]
_LOAD_PATH = re.compile(r"^/v1/models/[^/]+/load$")
_KEY_HEADERS = ("x-api-key", "api-key", "ocp-apim-subscription-key", "x-moondream-auth")
_KEY_SCHEMES = ("bearer", "token")  # the second one is Replicate's
_MAX_CLIENTS = 10_000  # whose rate is remembered

ErrorRenderer = Callable[[Request, ServiceError], Response]


def read_keys(path: str, setting: str = "keys_file") -> frozenset[bytes]:
    """Return the digests of the keys in a file, one per line, # starts a comment; no keys for "". Raises ConfigError."""
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting} is {path!r}, which cannot be read as text; it needs one key per line") from error
    keys = [line.partition("#")[0].strip() for line in lines]
    if not any(keys):
        raise ConfigError(f"{setting} {path!r} contains no key; write one per line, or remove the setting")
    return frozenset(_digest(key) for key in keys if key)


class SecurityMiddleware:
    """Checks keys and rates, and adds security headers to every response."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: frozenset[bytes],
        admin_keys: frozenset[bytes],
        requests_per_minute: int,
        metrics: Metrics,
        render: ErrorRenderer,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._admin_keys = admin_keys  # without any, nothing can be loaded
        self._rates = RateLimiter(requests_per_minute) if requests_per_minute else None
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_page = is_page_request(scope["method"], scope["path"])
        headers = PAGE_HEADERS if is_page else _DOCS_HEADERS if is_docs_path(scope["path"]) else _API_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        if scope["path"] not in PROBES and not is_page:
            try:
                self._check(scope)
            except ServiceError as error:
                self._metrics.rejected.labels(error.code).inc()
                await self._render(Request(scope), error)(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises ServiceError (401, 429)."""
        key = key_of(Headers(scope=scope))
        keys = self._admin_keys if self._admin_keys and _LOAD_PATH.match(scope["path"]) else self._keys
        if keys:
            bearer = {"WWW-Authenticate": "Bearer"}
            if not key:
                detail = "this service needs a key; send it as Authorization: Bearer, or as x-api-key"
                raise ServiceError("missing_key", detail, headers=bearer)
            # All are compared: the duration reveals nothing.
            if not sum(hmac.compare_digest(_digest(key), known) for known in keys):
                detail = "the key is unknown to this service; ask its operator for one"
                raise ServiceError("wrong_key", detail, headers=bearer)
        if self._rates is not None and scope["method"] == "POST":
            client = _digest(key) if keys else client_address(scope).encode()
            if seconds := self._rates.take(client):
                detail = f"this client has sent too many requests; try again in {seconds} s"
                raise retry_error("rate_limited", detail, seconds)


class RateLimiter:
    """A token bucket per client: so many requests per minute, all at once if the client likes."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: bytes, now: float | None = None) -> int:
        """Take a token of a client; returns 0, or the seconds until there will be one."""
        now = time.monotonic() if now is None else now
        tokens, then = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - then) * self._per_minute / 60)
        is_allowed = tokens >= 1
        self._buckets[client] = (tokens - is_allowed, now)
        while len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if is_allowed else max(1, math.ceil((1 - tokens) * 60 / self._per_minute))


def key_of(headers: Headers) -> str:
    """Return the key of a request, "" if it has none."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() in _KEY_SCHEMES and bearer.strip():
        return bearer.strip()
    return next((headers[name].strip() for name in _KEY_HEADERS if headers.get(name, "").strip()), "")


def client_address(scope: Scope) -> str:
    """Return the address of the connection's other end or, through a trusted proxy, of its client; "" if it is unknown."""
    return (scope.get("client") or ("",))[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
