"""Limits of connections that uvicorn does not have: per client, and for slow or endless headers and slow readers.

The time and size of a body are limited in body.py.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.proxies import Network, is_in, proxy_networks
from service.settings import Settings

_PROBE_SECONDS = 2.0  # between two interim responses to a client that has ended its side of the connection
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UPGRADE = re.compile(rb"(?i)(\r\n)upgrade(?=[ \t]*:)")
_NO_UPGRADE = b"501 Not Implemented"
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_SLOW = b"408 Request Timeout"
_TOO_MANY = b"429 Too Many Requests"
_BAD_REQUEST = b"400 Bad Request"


def limited_protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class Limited(LimitedProtocol):
        max_header_bytes, max_headers = settings.max_header_bytes, settings.max_headers
        header_seconds, write_seconds = settings.header_seconds, settings.write_seconds
        max_connections = settings.max_connections_per_client
        proxies = proxy_networks(settings.trusted_proxies)
        open_connections: ClassVar[Counter[str]] = Counter()

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools with limits for connections per client and for time, size and number of headers."""

    max_header_bytes: int
    max_headers: int
    header_seconds: float
    write_seconds: float
    max_connections: int  # per client address; 0: no limit
    proxies: tuple[Network, ...]  # whose connections are not limited
    open_connections: ClassVar[Counter[str]]  # open ones by client address

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._is_reading_headers = True
        self._received = 0  # bytes of the headers that are being read
        self._tail = b""  # their last three
        self._framing = 0  # bytes after the headers that are not body: chunk sizes, trailers
        self._write_timer: asyncio.TimerHandle | None = None
        self._client = ""
        self._is_half_closed = False
        self._probe_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._client = self.client[0] if self.client else ""
        self.open_connections[self._client] += 1
        is_limited = self.max_connections and not is_in(self._client, self.proxies)
        if is_limited and self.open_connections[self._client] > self.max_connections:
            self._reject(_TOO_MANY)
            return
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_connections[self._client] -= 1
        if not self.open_connections[self._client]:
            del self.open_connections[self._client]
        self._stop_header_timer()
        self._stop_write_timer()
        self._stop_probing()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the responses to complete requests: a client may end its side after its request.

        A client that has closed the connection looks the same until something is sent to it: see `_probe`.
        """
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self._is_half_closed = True
        self.cycle.keep_alive = False
        self._stop_header_timer()
        self._probe_timer = self.loop.call_later(_PROBE_SECONDS, self._probe)
        return True

    def data_received(self, data: bytes) -> None:
        """Count bytes while headers are read; reject before the parser keeps too many of them."""
        if self._is_reading_headers:
            self._received += len(data)
            # A block may contain the end of the headers and the start of a body: only the headers count.
            end = (self._tail + data).find(b"\r\n\r\n")
            head = self._received if end < 0 else self._received - len(data) - len(self._tail) + end
            cut = len(data) if end < 0 else max(0, end - len(self._tail))
            self._tail = (self._tail + data)[-3:]
            if head > self.max_header_bytes:
                self._reject(_TOO_LARGE)
                return
            # An offer of another protocol (curl --http2) may be ignored; the parser would not read the body.
            data = _UPGRADE.sub(rb"\1x-upgrade", data[:cut]) + data[cut:]
        else:
            self._framing += len(data)
        super().data_received(data)
        if self._framing > self.max_header_bytes:
            self._reject(_TOO_LARGE)
        elif self._header_timer is None and self.cycle is not None and self.cycle.response_complete:
            self._start_header_timer()  # the start of another request, or the rest of a body that is not read

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:  # another request on the same connection
            self._start_header_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.max_headers:
            self._reject(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        self._is_reading_headers = False
        if self.parser.should_upgrade():  # CONNECT, or an offer in one packet with an earlier request
            self._reject(_NO_UPGRADE)
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - 9 * len(body))  # a chunk of one byte has eight bytes of framing
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading_headers, self._received, self._tail, self._framing = True, 0, b"", 0
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _probe(self) -> None:
        """Send an interim response, which any client of HTTP/1.1 ignores (RFC 9110, section 15.2).

        The machine of a client that has closed the connection refuses it, so that the next one fails, and the request is
        cancelled.
        """
        self._probe_timer = None
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        if not self.cycle.response_started and not self.pipeline and self.cycle.scope["http_version"] == "1.1":
            self.transport.write(_PROBE)
        self._probe_timer = self.loop.call_later(_PROBE_SECONDS, self._probe)

    def _stop_probing(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _start_header_timer(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(self.header_seconds, self._reject, _TOO_SLOW)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def send_400_response(self, msg: str) -> None:
        """Reject what is not HTTP, without the server's text."""
        self._reject(_BAD_REQUEST)

    def _reject(self, status: bytes) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # half a response has been sent: another cannot start
        elif not self.transport.is_closing():
            self.logger.warning("connection rejected: %s", status.decode())
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
