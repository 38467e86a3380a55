"""One image's way through the engine, the same for every dialect: prepared, captioned, or captioned word by word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from model import CaptionResult, RegionError, TextError, Timing, Word, check_region
from service.errors import ServiceError, option_error
from service.http.body import lost_line_breaks
from service.http.dialects.native.parse import ParsedRequest
from service.runtime import Engine, PreparedImage, Ticket

_T = TypeVar("_T")
_CONTEXT = 0.2  # share of a region's sides that its crop shows more on each: what it is part of, or stands on
_IDLE_SECONDS = 10.0  # proxies close connections that send nothing


async def prepare_image(engine: Engine, parsed: ParsedRequest, ticket: Ticket, thumbnail_edge: int = 0) -> PreparedImage:
    """Decode the image of a request. Raises ServiceError, which says what `curl -d` does if that may have damaged it."""
    (image,) = parsed.images
    assert not isinstance(image, ServiceError), "read_image raises it"
    ticket.take("images", max(0, len(parsed.regions) - 1))  # each is captioned as an image is
    try:
        prepared = await engine.prepare(
            parsed.captioner, image, ticket, thumbnail_edge=thumbnail_edge, regions=parsed.crops, context=_CONTEXT
        )
        for region in parsed.regions:
            check_region(region, *prepared.view.source_size)
        return prepared
    except RegionError as error:
        raise option_error("regions", str(error)) from error
    except ServiceError as error:
        if error.code == "broken_image" and not parsed.has_line_breaks:
            raise lost_line_breaks() from error
        raise


async def caption_image(
    engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, *, text_only: bool = False
) -> CaptionResult:
    """Caption or explain an image, or each of its regions: their captions follow one another. Raises ServiceError."""
    requests = [
        parsed.caption_request(view, text_only=text_only, region=region)
        for view, region in zip(
            prepared.views if parsed.crops else [prepared.view] * max(1, len(parsed.regions)),
            parsed.regions or (None,),
            strict=True,
        )
    ]
    try:
        results = await gather([engine.caption(parsed.captioner, prepared, request, parsed.id) for request in requests])
    except TextError as error:
        raise _text_error(parsed, error) from error
    return _together(results)


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
        for word in result.best.words[num_words:]:
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


async def gather(works: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Await all of them; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _together(results: Sequence[CaptionResult]) -> CaptionResult:
    """Return the captions of all results as one, with the longest time of each part: they were computed at the same time."""
    if len(results) == 1:
        return results[0]
    times = [result.timing.as_dict() for result in results]
    timing = Timing(**{name: max(one[name] for one in times) for name in times[0]})
    return CaptionResult(tuple(caption for result in results for caption in result.captions), results[0].grid, timing)


def _text_error(parsed: ParsedRequest, error: TextError) -> ServiceError:
    name = "task_input" if str(error).startswith("task_input") else "prompt"
    return option_error("caption" if parsed.generation is None else name, str(error))
