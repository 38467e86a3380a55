"""The forms of an answer beside JSON: text, words as events while they are found, a contact sheet, a report to keep."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from model import Box, GenerationOptions, ImageView, TextError, Wanted, Word
from report import contact_sheet, overlay, page, picture_uri, word_figures
from service.answers import answer_json, grid_json, image_json, sortable_id, word_json
from service.engine import Captioned, Engine, Prepared
from service.errors import Problem, option_problem, problem_json
from service.intake import Received
from service.schemas import MOST_MAP_VALUES, CaptionOptions

_LOG = logging.getLogger(__name__)

JSON, TEXT, EVENTS, PNG, HTML = "application/json", "text/plain", "text/event-stream", "image/png", "text/html"
FORMS = (JSON, TEXT, EVENTS, PNG, HTML)
EDGE = 800  # pixels of the photograph's longer edge in a sheet or report
_COMMENT_SECONDS = 10.0  # proxies close what says nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for captions asks for, checked."""

    model: str
    language: str
    options: CaptionOptions
    generation: GenerationOptions
    received: Received
    request_id: str

    def wanted(self, view: ImageView, form: str = JSON) -> Wanted:
        """Return what the model is to do; text needs no maps."""
        told = form != TEXT
        return Wanted(view, self.generation, maps=told and self.options.maps != "none", reliance=told and self.options.reliance)


def contact_sheet_png(found: Captioned) -> bytes:
    """Return the photograph and one overlay a word as PNG."""
    assert found.photograph is not None, "it was not asked for"
    sheet = contact_sheet(found.photograph, found.captions.captions[0], found.captions.grid, _shares(found.view))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def report_html(found: Captioned, model: str, language: str) -> str:
    """Return a page that holds everything: photograph, captions, and every word's overlay and figures."""
    photograph = found.photograph
    assert photograph is not None, "it was not asked for"
    captions = [
        {
            "text": caption.text,
            "log_probability": caption.log_probability,
            "words": [_shown(word, photograph, found) for word in caption.words],
        }
        for caption in found.captions.captions
    ]
    picture = picture_uri(photograph, EDGE)
    return page(
        "caption.html", title="A caption and its words", model=model, language=language, picture=picture, captions=captions
    )


class EventsResponse(StreamingResponse):
    """Server-sent events; `place` is left when they end, were never begun, or their client goes away."""

    def __init__(self, content: AsyncIterator[bytes], place: contextlib.ExitStack) -> None:
        super().__init__(content, media_type=EVENTS, headers={"x-accel-buffering": "no"})  # proxies pass each on at once
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._place.close()


async def events(engine: Engine, asked: Asked, prepared: Prepared) -> AsyncIterator[bytes]:
    """Yield server-sent events: `start`, a `word` as soon as each is final, then `caption`, or `error`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + engine.settings.deadline_seconds
    told: asyncio.Queue[Word | None] = asyncio.Queue()
    identity = f"cap_{sortable_id()}"
    view, target = prepared.view, asked.options.target_grid()
    grid = engine.captioners[asked.model].grid

    def progress(words: tuple[Word, ...]) -> None:
        for word in words:
            told.put_nowait(word)

    work = asyncio.ensure_future(engine.caption(asked.model, prepared, asked.wanted(view), asked.request_id, progress))
    work.add_done_callback(lambda _: told.put_nowait(None))
    index = 0

    async def word_event(word: Word) -> bytes:
        if target is not None and (index + 1) * target.cells > MOST_MAP_VALUES:
            detail = f"map_size is {asked.options.map_size!r}: its maps are more than {MOST_MAP_VALUES} values"
            raise option_problem("map_size", detail, json=asked.received.json)
        made = partial(word_json, word, view, grid, target)
        return _event("word", {"index": index, **await loop.run_in_executor(engine.writers, made)})

    try:
        yield _event("start", {"id": identity, "model": asked.model, "image": image_json(view), "grid": grid_json(view, grid)})
        while True:
            left = deadline - loop.time()
            if left <= 0:
                raise Problem("deadline_exceeded", "no whole caption was found in time; ask for fewer beams, or later")
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
        words = sum(len(caption.words) for caption in found.captions.captions)
        if target is not None and words * target.cells > MOST_MAP_VALUES:
            detail = f"map_size is {asked.options.map_size!r}: {words} words of it are more than {MOST_MAP_VALUES} values"
            raise option_problem("map_size", detail, json=asked.received.json)
        made = partial(answer_json, "caption", asked.model, asked.language, view, found.captions, target, found.timing, identity)
        body = await loop.run_in_executor(engine.writers, made)
        yield await loop.run_in_executor(engine.writers, _event, "caption", body)
    except TextError as error:
        yield _event("error", problem_json(option_problem("prompt", str(error), json=asked.received.json), asked.request_id))
    except Problem as problem:
        yield _event("error", problem_json(problem, asked.request_id))
    except Exception as error:
        _LOG.error("bug id=%s", asked.request_id, exc_info=error)
        bug = Problem("internal", "a bug of the service; the log has it under the request id")
        yield _event("error", problem_json(bug, asked.request_id))
    finally:
        work.cancel()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n".encode()


def _shares(view: ImageView) -> Box:
    """Return what the cells tile in shares of the photograph's width and height."""
    (width, height), covers = view.source_size, view.covers
    return Box(covers.x0 / width, covers.y0 / height, covers.x1 / width, covers.y1 / height)


def _shown(word: Word, photograph: Image.Image, found: Captioned) -> dict[str, Any]:
    picture = None
    if word.map is not None:
        picture = picture_uri(overlay(photograph, word, found.captions.grid, _shares(found.view)))
    return {"text": word.text, "picture": picture, "figures": word_figures(word)}
