"""The paths of the service: captions, explanations, health and models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from model import Captioner, CaptionRequest, TextError
from service.admission import Place
from service.answers import answer_json, model_json
from service.engine import Engine
from service.errors import PROBLEMS, Problem, option_problem, problem_json
from service.intake import Received, ReceivedBatch, receive, receive_batch, receive_json
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
    load_operation,
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
    caption_json,
    contact_sheet_png,
    map_values,
    report_html,
)
from service.schemas import (
    MAX_CAPTION_WORDS,
    MAX_MAP_VALUES,
    CaptionOptions,
    ExplanationOptions,
    LoadOptions,
    MapOptions,
    generation_options,
    parse_options,
)
from service.sending import held, json_response, timing_header
from service.stream import events_response

_T = TypeVar("_T")


def build_router(engine: Engine) -> APIRouter:
    """Return the routes over one engine."""
    router = APIRouter()

    @router.post("/v1/captions", **captions_operation())
    async def captions(request: Request) -> Response:
        form = negotiate(", ".join(request.headers.getlist("accept")), FORMS)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(engine.enter())
            received = await receive(request, engine.body_limits, place)
            asked, deadline = _asked(engine, request, received), engine.deadline()
            if form == EVENTS:
                prepared = await engine.in_time(request, engine.prepare(asked.captioner, received, place), deadline)
                return held(events_response(engine, asked, prepared, deadline), stack)
            work = _captioned(engine, request, asked, received, place, form)
            return held(await engine.in_time(request, work, deadline), stack)

    @router.post("/v1/captions/batch", **batch_operation())
    async def captions_of_many(request: Request) -> Response:
        negotiate(", ".join(request.headers.getlist("accept")), (JSON,))
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(engine.enter())
            received = await receive_batch(request, engine.body_limits, place)
            place.take("pictures", len(received.images) - 1)
            asked = _asked(engine, request, received)

            async def one(image: bytes | Problem) -> dict[str, Any]:
                try:
                    if isinstance(image, Problem):
                        raise image
                    alone = Received(image, received.options, received.json)
                    with engine.admission.enter(0) as pixels:
                        prepared = await engine.prepare(asked.captioner, alone, pixels)
                    found = await engine.caption(asked.captioner, prepared, asked.wanted(prepared.view), asked.request_id)
                    map_values(found, asked.options, json=asked.json, pictures=len(received.images))
                    return await engine.in_writer(lambda: caption_json(asked, found))
                except TextError as error:  # the prompt is all pictures' own
                    raise option_problem("prompt", str(error), json=asked.json) from error
                except Problem as problem:
                    return problem_json(problem, asked.request_id)

            async def all_of_them() -> Response:
                data = await _gathered([one(image) for image in received.images])
                return await json_response(engine, request, MAX_MAP_VALUES, lambda: {"object": "list", "data": data})

            return held(await engine.in_time(request, all_of_them(), engine.deadline()), stack)

    @router.post("/v1/explanations", **explanations_operation())
    async def explanations(request: Request) -> Response:
        negotiate(", ".join(request.headers.getlist("accept")), (JSON,))
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(engine.enter())
            received = await receive(request, engine.body_limits, place)
            options = parse_options(ExplanationOptions, received.options, json=received.json)
            name, captioner = engine.captioner(options.model)
            language = _language(options, captioner, received.json)
            if (words := captioner.count_words(options.caption)) > MAX_CAPTION_WORDS:
                detail = f"caption has {words} words; at most {MAX_CAPTION_WORDS} can be explained: send a shorter one"
                raise option_problem("caption", detail, json=received.json)

            async def work() -> Response:
                prepared = await engine.prepare(captioner, received, place)
                wanted = CaptionRequest(
                    view=prepared.view, texts=(options.caption,), maps=options.maps, reliance=options.reliance
                )
                try:
                    found = await engine.caption(captioner, prepared, wanted, request.scope["state"]["request_id"])
                except TextError as error:
                    raise option_problem("caption", str(error), json=received.json) from error
                values = map_values(found, options, json=received.json)
                target = options.target_grid()
                return await json_response(
                    engine,
                    request,
                    values,
                    lambda: answer_json("explanation", name, language, found.view, found.captions, target, found.timing),
                    timing_header(found.timing),
                )

            return held(await engine.in_time(request, work(), engine.deadline()), stack)

    if engine.settings.admin_keys_file:

        @router.post("/v1/models/{name}/load", **load_operation())
        async def load(name: str, request: Request) -> Response:
            with engine.admission.enter(0) as place:  # it takes no picture's place
                options = parse_options(LoadOptions, await receive_json(request, engine.body_limits, place), json=True)
                return JSONResponse(model_json(name, await engine.load(name, options.checkpoint)))

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


def _asked(engine: Engine, request: Request, received: Received | ReceivedBatch) -> Asked:
    """Check what a request for captions asks for. Raises Problem."""
    options = parse_options(CaptionOptions, received.options, json=received.json)
    name, captioner = engine.captioner(options.model)
    language = _language(options, captioner, received.json)
    generation = generation_options(options, captioner.config.generation, json=received.json)
    return Asked(name, captioner, language, options, generation, received.json, request.scope["state"]["request_id"])


async def _captioned(engine: Engine, request: Request, asked: Asked, received: Received, place: Place, form: str) -> Response:
    """Decode a picture, caption it, and return the captions in the form that was asked for. Raises Problem."""
    prepared = await engine.prepare(asked.captioner, received, place, EDGE if form in (PNG, HTML) else 0)
    try:
        found = await engine.caption(asked.captioner, prepared, asked.wanted(prepared.view, form), asked.request_id)
    except TextError as error:
        raise option_problem("prompt", str(error), json=asked.json) from error
    timing = timing_header(found.timing)
    if form == TEXT:
        return PlainTextResponse(found.captions.captions[0].text + "\n", headers=timing)
    if form == PNG:
        return Response(await engine.in_writer(lambda: contact_sheet_png(found)), media_type=PNG, headers=timing)
    if form == HTML:
        return HTMLResponse(await engine.in_writer(lambda: report_html(found, asked.model, asked.language)), headers=timing)
    values = map_values(found, asked.options, json=asked.json)
    return await json_response(engine, request, values, lambda: caption_json(asked, found), timing)


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
