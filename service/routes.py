"""The paths of the service: captions, explanations, health and models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from model import Captioner, TextError, Wanted
from service.admission import Place
from service.answers import answer_json, model_json
from service.engine import Captioned, Engine, Prepared
from service.errors import PROBLEMS, Problem, option_problem, problem_json
from service.intake import Received, ReceivedBatch, receive, receive_batch
from service.metrics import MEDIA_TYPE as METRICS_TYPE
from service.negotiation import negotiate
from service.openapi import (
    LIVE,
    METRICS,
    MODELS,
    PROBLEM_PAGE,
    READY,
    batch_operation,
    captions_operation,
    explanations_operation,
)
from service.outputs import (
    EDGE,
    EVENTS,
    FORMS,
    HTML,
    JSON,
    PNG,
    TEXT,
    Asked,
    EventsResponse,
    contact_sheet_png,
    events,
    report_html,
)
from service.schemas import MOST_CAPTION_WORDS, MOST_MAP_VALUES, CaptionOptions, ExplanationOptions, MapOptions, parse_options

_T = TypeVar("_T")


def build_router(engine: Engine) -> APIRouter:
    """Return the routes over one engine."""
    router = APIRouter()

    @router.post("/v1/captions", **captions_operation())
    async def captions(request: Request) -> Response:
        form = negotiate(", ".join(request.headers.getlist("accept")), FORMS)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(engine.enter())
            asked = await _asked(engine, request, place)
            image, edge = asked.received.image, EDGE if form in (PNG, HTML) else 0
            prepared = await engine.in_time(request, engine.prepare(asked.model, image, place, edge))
            if form == EVENTS:
                return EventsResponse(events(engine, asked, prepared), stack.pop_all())
            found = await _found(engine, request, asked, prepared, form)
            timing = _timing_header(found.timing)
            if form == TEXT:
                return PlainTextResponse(found.captions.captions[0].text + "\n", headers=timing)
            if form == PNG:
                sheet = await _in_writer(engine, lambda: contact_sheet_png(found))
                return Response(sheet, media_type=PNG, headers=timing)
            if form == HTML:
                report = await _in_writer(engine, lambda: report_html(found, asked.model, asked.language))
                return HTMLResponse(report, headers=timing)
            return await _respond(engine, "caption", asked.model, asked.language, found, asked.options, asked.received)

    @router.post("/v1/captions/batch", **batch_operation())
    async def captions_of_many(request: Request) -> Response:
        negotiate(", ".join(request.headers.getlist("accept")), (JSON,))
        with engine.enter() as place:
            received = await receive_batch(request, engine.body_limits, place)
            place.take("pictures", len(received.images) - 1)
            options = parse_options(CaptionOptions, received.options, json=received.json)
            name, captioner = engine.captioner(options.model)
            language = _language(options, captioner, received.json)
            generation = options.generation(captioner.config.generation, json=received.json)
            request_id = request.scope["state"]["request_id"]

            async def one(image: bytes | Problem) -> dict[str, Any]:
                try:
                    if isinstance(image, Problem):
                        raise image
                    with engine.admission.enter(0) as pixels:
                        prepared = await engine.prepare(name, image, pixels)
                    wanted = Wanted(prepared.view, generation, maps=options.maps != "none", reliance=options.reliance)
                    found = await engine.caption(name, prepared, wanted, request_id)
                    return await _written(engine, "caption", name, language, found, options, received)
                except TextError as error:
                    raise option_problem("prompt", str(error), json=received.json) from error
                except Problem as problem:
                    return problem_json(problem, request_id)

            data = await engine.in_time(request, _gathered([one(image) for image in received.images]))
            return JSONResponse({"object": "list", "data": data})

    @router.post("/v1/explanations", **explanations_operation())
    async def explanations(request: Request) -> Response:
        negotiate(", ".join(request.headers.getlist("accept")), (JSON,))
        with engine.enter() as place:
            received = await receive(request, engine.body_limits, place)
            options = parse_options(ExplanationOptions, received.options, json=received.json)
            name, captioner = engine.captioner(options.model)
            language = _language(options, captioner, received.json)
            if (words := captioner.count_words(options.caption)) > MOST_CAPTION_WORDS:
                detail = f"caption has {words} words; at most {MOST_CAPTION_WORDS} can be explained: send a shorter one"
                raise option_problem("caption", detail, json=received.json)

            async def work() -> Captioned:
                prepared = await engine.prepare(name, received.image, place)
                maps = options.maps != "none"
                wanted = Wanted(prepared.view, text=options.caption, maps=maps, reliance=options.reliance)
                return await engine.caption(name, prepared, wanted, request.scope["state"]["request_id"])

            try:
                found = await engine.in_time(request, work())
            except TextError as error:
                raise option_problem("caption", str(error), json=received.json) from error
            return await _respond(engine, "explanation", name, language, found, options, received)

    @router.head("/livez", include_in_schema=False)
    @router.get("/livez", **LIVE)
    async def livez() -> Response:
        if not engine.alive:
            raise Problem("not_ready", "the model thread does not get on; the service restarts", headers={"Retry-After": "5"})
        return JSONResponse({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", **READY)
    async def readyz() -> Response:
        if engine.trouble:
            raise Problem(engine.trouble, "this process takes no new work; ask another one", headers={"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models", **MODELS)
    async def models() -> Response:
        data = [model_json(name, captioner) for name, captioner in engine.captioners.items()]
        return JSONResponse({"object": "list", "data": data})

    if engine.settings.metrics:

        @router.get("/metrics", **METRICS)
        async def metrics() -> Response:
            return Response(engine.metrics.text(), media_type=METRICS_TYPE)

    @router.get("/problems/{code}", **PROBLEM_PAGE)
    async def problem_page(code: str) -> Response:
        if code not in PROBLEMS:
            raise Problem("unknown_path", f"there is no problem {code!r}; there are {', '.join(PROBLEMS)}")
        kind = PROBLEMS[code]
        return PlainTextResponse(f"{kind.status} {code}: {kind.title}.\n{kind.explanation}\n")

    return router


async def _asked(engine: Engine, request: Request, place: Place) -> Asked:
    """Read a request for captions and check what it asks for. Raises Problem."""
    received = await receive(request, engine.body_limits, place)
    options = parse_options(CaptionOptions, received.options, json=received.json)
    name, captioner = engine.captioner(options.model)
    language = _language(options, captioner, received.json)
    generation = options.generation(captioner.config.generation, json=received.json)
    return Asked(name, language, options, generation, received, request.scope["state"]["request_id"])


async def _found(engine: Engine, request: Request, asked: Asked, prepared: Prepared, form: str) -> Captioned:
    wanted = asked.wanted(prepared.view, form)
    try:
        return await engine.in_time(request, engine.caption(asked.model, prepared, wanted, asked.request_id))
    except TextError as error:
        raise option_problem("prompt", str(error), json=asked.received.json) from error


async def _respond(
    engine: Engine, kind: str, model: str, language: str, found: Captioned, options: MapOptions, received: Received
) -> Response:
    body = await _written(engine, kind, model, language, found, options, received)
    return await _in_writer(engine, lambda: JSONResponse(body, headers=_timing_header(found.timing)))


async def _written(
    engine: Engine,
    kind: str,
    model: str,
    language: str,
    found: Captioned,
    options: MapOptions,
    received: Received | ReceivedBatch,
) -> dict[str, Any]:
    """Return an answer's JSON, made in a thread of its own: large maps must not keep the loop from other requests."""
    target = options.target_grid()
    pictures = len(received.images) if isinstance(received, ReceivedBatch) else 1
    words = sum(len(caption.words) for caption in found.captions.captions) * pictures
    if target is not None and options.maps != "none" and words * target.cells > MOST_MAP_VALUES:
        detail = (
            f"map_size is {options.map_size!r}: {words} words of {target.cells} cells are more than {MOST_MAP_VALUES} values; "
            "ask for smaller maps, fewer captions or fewer pictures"
        )
        raise option_problem("map_size", detail, json=received.json)
    return await _in_writer(engine, lambda: answer_json(kind, model, language, found.view, found.captions, target, found.timing))


async def _in_writer(engine: Engine, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(engine.writers, work)


async def _gathered(works: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Await all of them; where one fails, the others are dropped."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _language(options: MapOptions, captioner: Captioner, json: bool) -> str:
    known = {tag.lower(): tag for tag in captioner.config.languages}  # BCP 47 ignores case
    wanted = (options.language or captioner.config.languages[0]).lower()
    if wanted not in known:
        detail = f"language is {options.language!r}; this checkpoint speaks {', '.join(known.values())}"
        raise option_problem("language", detail, json=json)
    return known[wanted]


def _timing_header(timing: dict[str, float]) -> dict[str, str]:
    return {"server-timing": ", ".join(f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in timing.items())}
