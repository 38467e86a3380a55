"""One image's way through the engine, the same for every dialect: prepared, captioned, or captioned word by word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request

from model import CaptionResult, TextError, Word
from service.errors import ServiceError, option_error
from service.http.body import lost_line_breaks
from service.http.dialects.native.parse import ParsedRequest
from service.runtime import Engine, PreparedImage, Ticket

_IDLE_SECONDS = 10.0  # proxies close connections that send nothing


async def prepare_image(engine: Engine, parsed: ParsedRequest, ticket: Ticket, thumbnail_edge: int = 0) -> PreparedImage:
    """Decode the image of a request. Raises ServiceError, which says what `curl -d` does if that may have damaged it."""
    (image,) = parsed.images
    assert not isinstance(image, ServiceError), "read_image raises it"
    try:
        return await engine.prepare(parsed.captioner, image, ticket, thumbnail_edge=thumbnail_edge)
    except ServiceError as error:
        if error.code == "broken_image" and not parsed.has_line_breaks:
            raise lost_line_breaks() from error
        raise


async def caption_image(
    engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, *, text_only: bool = False
) -> CaptionResult:
    """Caption or explain an image. Raises ServiceError."""
    try:
        return await engine.caption(
            parsed.captioner, prepared, parsed.caption_request(prepared.view, text_only=text_only), parsed.id
        )
    except TextError as error:
        raise _text_error(parsed, error) from error


async def caption_words(
    engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, deadline: float
) -> AsyncGenerator[Word | CaptionResult | None]:
    """Yield every word of the first caption as soon as it is final, then the result; None after some seconds without a word.

    Raises ServiceError: 504 after the deadline, in the loop's time.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Word | None] = asyncio.Queue()  # None: the caption is done
    num_words = 0

    def on_words(words: tuple[Word, ...]) -> None:
        for word in words:
            queue.put_nowait(word)

    request = parsed.caption_request(prepared.view)
    work = asyncio.ensure_future(engine.caption(parsed.captioner, prepared, request, parsed.id, on_words))
    work.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while True:
            seconds = deadline - loop.time()
            if seconds <= 0:
                raise engine.deadline_error()
            try:
                word = await asyncio.wait_for(queue.get(), min(_IDLE_SECONDS, seconds))
            except TimeoutError:
                yield None
                continue
            if word is None:
                break
            yield word
            num_words += 1
        try:
            result = work.result()
        except TextError as error:
            raise _text_error(parsed, error) from error
        for word in result.captions[0].words[num_words:]:
            yield word
        yield result
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work


async def disconnected(request: Request) -> None:
    """Return when the client disconnects; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _text_error(parsed: ParsedRequest, error: TextError) -> ServiceError:
    return option_error("caption" if parsed.generation is None else "prompt", str(error))
