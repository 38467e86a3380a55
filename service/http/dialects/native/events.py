"""Captions as server-sent events: words with their maps as soon as each is final."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from model import PatchGrid, TextError, Word
from service.errors import ServiceError, internal_error, option_error
from service.http.dialects.native.json_body import grid_json, image_json, sortable_id, word_json
from service.http.dialects.native.outputs import EVENTS, body_json, check_map_values, problem_of
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.native.schemas import MAX_MAP_VALUES
from service.http.json_encoding import encode_json
from service.runtime import Engine, PreparedImage

_LOG = logging.getLogger(__name__)
_COMMENT_SECONDS = 10.0  # proxies close connections that send nothing


def events_response(engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, deadline: float) -> StreamingResponse:
    """Return server-sent events: `start`, a `word` as soon as each is final, then `caption`, or `error`."""
    unbuffered = {"x-accel-buffering": "no"}  # proxies forward each event at once
    return StreamingResponse(_events(engine, parsed, prepared, deadline), media_type=EVENTS, headers=unbuffered)


async def _events(engine: Engine, parsed: ParsedRequest, prepared: PreparedImage, deadline: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Word | None] = asyncio.Queue()  # None: the caption is done
    result_id = f"cap_{sortable_id()}"
    view, target = prepared.view, parsed.options.target()
    grid = parsed.captioner.grid
    index = 0

    def on_words(words: tuple[Word, ...]) -> None:
        for word in words:
            queue.put_nowait(word)

    async def word_event(word: Word) -> bytes:
        if loop.time() > deadline:
            raise engine.deadline_error()
        if isinstance(target, PatchGrid) and word.map is not None and (index + 1) * target.num_patches > MAX_MAP_VALUES:
            detail = f"map_size is {parsed.options.map_size!r}: its maps are more than {MAX_MAP_VALUES} values"
            raise option_error("map_size", detail)
        return await engine.in_writer(lambda: _event("word", {"index": index, **word_json(word, view, grid, target)}))

    request = parsed.caption_request(view)
    work = asyncio.ensure_future(engine.caption(parsed.captioner, prepared, request, parsed.id, on_words))
    work.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        start = {"id": result_id, "model": parsed.model, "image": image_json(view), "grid": grid_json(view, grid)}
        yield _event("start", start)
        while True:
            seconds = deadline - loop.time()
            if seconds <= 0:
                raise engine.deadline_error()
            try:
                word = await asyncio.wait_for(queue.get(), min(_COMMENT_SECONDS, seconds))
            except TimeoutError:
                yield b": still working\n\n"
                continue
            if word is None:
                break
            yield await word_event(word)
            index += 1
        result = work.result()
        for word in result.captions[0].words[index:]:
            yield await word_event(word)
            index += 1
        check_map_values(parsed, result)
        yield await engine.in_writer(lambda: _event("caption", body_json(parsed, view, result, result_id)))
    except Exception as error:
        yield _event("error", problem_of(engine, parsed, _service_error(parsed, error)))
    finally:
        work.cancel()


def _service_error(parsed: ParsedRequest, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, TextError):
        return option_error("prompt", str(error))
    _LOG.error("bug id=%s", parsed.id, exc_info=error)
    return internal_error()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + encode_json(data) + b"\n\n"
