"""Captions as server-sent events: words with their maps as soon as each is final."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from model import TextError, Word
from service.answers import encode, grid_json, image_json, sortable_id, word_json
from service.engine import Engine, Prepared
from service.errors import Problem, option_problem, problem_json
from service.outputs import EVENTS, Asked, caption_json, map_values
from service.schemas import MAX_MAP_VALUES

_LOG = logging.getLogger(__name__)
_COMMENT_SECONDS = 10.0  # proxies close what says nothing


def events_response(engine: Engine, asked: Asked, prepared: Prepared, deadline: float) -> StreamingResponse:
    """Return server-sent events: `start`, a `word` as soon as each is final, then `caption`, or `error`."""
    unbuffered = {"x-accel-buffering": "no"}  # proxies pass each on at once
    return StreamingResponse(_events(engine, asked, prepared, deadline), media_type=EVENTS, headers=unbuffered)


async def _events(engine: Engine, asked: Asked, prepared: Prepared, deadline: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[Word | None] = asyncio.Queue()
    identity = f"cap_{sortable_id()}"
    view, target = prepared.view, asked.options.target_grid()
    grid = asked.captioner.grid

    def progress(words: tuple[Word, ...]) -> None:
        for word in words:
            told.put_nowait(word)

    work = asyncio.ensure_future(engine.caption(asked.captioner, prepared, asked.wanted(view), asked.request_id, progress))
    work.add_done_callback(lambda _: told.put_nowait(None))
    index = 0

    async def word_event(word: Word) -> bytes:
        if loop.time() > deadline:
            raise engine.too_late()
        if target is not None and asked.options.maps != "none" and (index + 1) * target.num_patches > MAX_MAP_VALUES:
            detail = f"map_size is {asked.options.map_size!r}: its maps are more than {MAX_MAP_VALUES} values"
            raise option_problem("map_size", detail, json=asked.json)
        return await engine.in_writer(lambda: _event("word", {"index": index, **word_json(word, view, grid, target)}))

    try:
        yield _event("start", {"id": identity, "model": asked.model, "image": image_json(view), "grid": grid_json(view, grid)})
        while True:
            left = deadline - loop.time()
            if left <= 0:
                raise engine.too_late()
            try:
                word = await asyncio.wait_for(told.get(), min(_COMMENT_SECONDS, left))
            except TimeoutError:
                yield b": still at work\n\n"
                continue
            if word is None:
                break
            yield await word_event(word)
            index += 1
        found = work.result()
        for word in found.captions.captions[0].words[index:]:
            yield await word_event(word)
            index += 1
        map_values(found, asked.options, json=asked.json)
        yield await engine.in_writer(lambda: _event("caption", caption_json(asked, found, identity)))
    except TextError as error:
        yield _event("error", problem_json(option_problem("prompt", str(error), json=asked.json), asked.request_id))
    except Problem as problem:
        yield _event("error", problem_json(problem, asked.request_id))
    except Exception as error:
        _LOG.error("bug id=%s", asked.request_id, exc_info=error)
        bug = Problem("internal", "a bug of the service; the log has it under the request id")
        yield _event("error", problem_json(bug, asked.request_id))
    finally:
        work.cancel()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + encode(data) + b"\n\n"
