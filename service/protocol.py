"""Connections that send slowly, or headers without end: uvicorn has no limit for them, so its protocol is given one.

A body's deadline is in intake.py, where its size is judged too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings

_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_SLOW = b"408 Request Timeout"


def bounded_protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class Bounded(BoundedProtocol):
        most_bytes, most_headers, seconds = settings.max_header_bytes, settings.max_headers, settings.header_seconds

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools that gives headers a time, a size and a number."""

    most_bytes: int
    most_headers: int
    seconds: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._reads_headers = True
        self._received = 0  # bytes of the headers that are being read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes while headers are read; refuse before the parser keeps too much of it."""
        if self._reads_headers:
            self._received += len(data)
            # A first block may hold headers and the beginning of a body: that is judged by where the headers end.
            head = self._received if b"\r\n\r\n" not in data else self._received - len(data) + data.index(b"\r\n\r\n")
            if head > self.most_bytes:
                self._refuse(_TOO_LARGE)
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._reads_headers:  # another request of the same connection
            self._reads_headers, self._received = True, 0
            self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.most_headers:
            self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._reads_headers = False
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(self.seconds, self._refuse, _TOO_SLOW)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.logger.warning("connection refused: %s", status.decode())
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
