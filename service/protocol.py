"""Connections that send slowly, or headers without end: uvicorn has no limit for them, so its protocol is given one.

A body's deadline is in intake.py, where its size is judged too.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings

_UPGRADE = re.compile(rb"(?i)(\r\n)upgrade(?=[ \t]*:)")
_NO_UPGRADE = b"501 Not Implemented"
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_SLOW = b"408 Request Timeout"


def bounded_protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class Bounded(BoundedProtocol):
        most_bytes, most_headers = settings.max_header_bytes, settings.max_headers
        seconds, write_seconds = settings.header_seconds, settings.write_seconds

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools that gives headers a time, a size and a number."""

    most_bytes: int
    most_headers: int
    seconds: float
    write_seconds: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._reads_headers = True
        self._received = 0  # bytes of the headers that are being read
        self._tail = b""  # their last three
        self._framing = 0  # bytes behind the headers that are no body: chunk sizes, trailers
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes while headers are read; refuse before the parser keeps too much of it."""
        if self._reads_headers:
            self._received += len(data)
            # A block may hold the end of the headers and the beginning of a body: only what comes before is judged.
            end = (self._tail + data).find(b"\r\n\r\n")
            head = self._received if end < 0 else self._received - len(data) - len(self._tail) + end
            cut = len(data) if end < 0 else max(0, end - len(self._tail))
            self._tail = (self._tail + data)[-3:]
            if head > self.most_bytes:
                self._refuse(_TOO_LARGE)
                return
            # An offer of another protocol (curl --http2) may be ignored; the parser would leave the body unread.
            data = _UPGRADE.sub(rb"\1x-upgrade", data[:cut]) + data[cut:]
        else:
            self._framing += len(data)
        super().data_received(data)
        if self._framing > self.most_bytes:
            self._refuse(_TOO_LARGE)
        elif self._waiting is None and self.cycle is not None and self.cycle.response_complete:
            self._wait()  # a beginning of another request, or the rest of a body that nobody reads

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._waiting is None:  # another request of the same connection
            self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.most_headers:
            self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._reads_headers = False
        if self.parser.should_upgrade():  # CONNECT, or an offer that came in one packet with what was before it
            self._refuse(_NO_UPGRADE)
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - 9 * len(body))  # a chunk of one byte has eight around it
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reads_headers, self._received, self._tail, self._framing = True, 0, b"", 0
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(self.seconds, self._refuse, _TOO_SLOW)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, status: bytes) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # half an answer is out: another cannot begin
        elif not self.transport.is_closing():
            self.logger.warning("connection refused: %s", status.decode())
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
