"""Captions as streams of events, in whatever form a dialect writes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

from starlette.responses import StreamingResponse

from model import CaptionResult, Word
from service.errors import ServiceError, internal_error
from service.http.dialects.flow import caption_words
from service.http.dialects.native.parse import ParsedRequest
from service.http.json_encoding import encode_json
from service.runtime import Engine, PreparedImage

_LOG = logging.getLogger(__name__)
STILL_WORKING = b": still working\n\n"  # a comment, which clients of server-sent events skip
_UNBUFFERED = {"x-accel-buffering": "no"}  # proxies forward each event at once


class EventWriter(Protocol):
    """Writes one caption's stream as the bytes of a dialect; its methods are called in order, one at a time."""

    media_type: str
    idle: bytes  # sent when there was no word for some seconds; b"": nothing is sent

    def start(self) -> bytes:
        """Return what is sent before the first word."""
        ...

    def word(self, word: Word) -> bytes:
        """Return what is sent when a word is final. May raise ServiceError."""
        ...

    def end(self, result: CaptionResult) -> bytes:
        """Return what is sent when all is known. May raise ServiceError."""
        ...

    def error(self, error: ServiceError) -> bytes:
        """Return what is sent instead of the rest."""
        ...


def event(name: str, data: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"event: {name}\n".encode() + data_event(data)


def data_event(data: dict[str, Any]) -> bytes:
    """Return a server-sent event without a name."""
    return b"data: " + encode_json(data) + b"\n\n"


def streaming_response(
    engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, deadline: float, writer: EventWriter
) -> StreamingResponse:
    """Return the response that captions while it is sent, until the deadline in the loop's time."""
    events = _events(engine, parsed, prepared, deadline, writer)
    return StreamingResponse(events, media_type=writer.media_type, headers=_UNBUFFERED)


async def _events(
    engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, deadline: float, writer: EventWriter
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    try:
        if started := writer.start():
            yield started
        async with aclosing(caption_words(engine, parsed, prepared, deadline)) as words:
            async for item in words:
                if loop.time() > deadline:
                    raise engine.deadline_error()
                written = writer.idle if item is None else await engine.in_writer(partial(_written, writer, item))
                if written:
                    yield written
    except Exception as error:
        yield writer.error(_service_error(parsed, error))


def _written(writer: EventWriter, item: Word | CaptionResult) -> bytes:
    return writer.word(item) if isinstance(item, Word) else writer.end(item)


def _service_error(parsed: ParsedRequest, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    _LOG.error("bug id=%s", parsed.id, exc_info=error)
    return internal_error()
