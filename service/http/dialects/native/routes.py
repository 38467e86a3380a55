"""The routes of the native API, and of the service itself: probes, metrics, problem pages."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from model import TextError
from service.errors import ERRORS, ServiceError, internal_error, option_error, retry_error
from service.http.body import read_image, read_images, read_json
from service.http.dialects.flow import caption_image, disconnected, gather, prepare_image
from service.http.dialects.native import openapi
from service.http.dialects.native.events import NativeEvents
from service.http.dialects.native.json_body import model_json
from service.http.dialects.native.outputs import (
    BATCH_TYPES,
    CAPTION_TYPES,
    EVENTS,
    EXPLANATION_TYPES,
    HTML,
    PNG,
    TEXT,
    THUMBNAIL_EDGE,
    body_json,
    caption_lines,
    caption_response,
    check_map_values,
    problem_of,
)
from service.http.dialects.native.parse import ParsedRequest, parse_captions, parse_explanation
from service.http.dialects.native.schemas import MAX_MAP_VALUES, LoadOptions, parse_options
from service.http.dialects.streaming import streaming_response
from service.http.negotiation import negotiate
from service.http.responses import hold_until_sent, json_response
from service.http.security import client_address
from service.metrics import MEDIA_TYPE as METRICS_TYPE
from service.runtime import Engine, Ticket
from service.version import VERSION

_LOG = logging.getLogger(__name__)


def build_router(engine: Engine) -> APIRouter:
    """Return the routes over one engine."""
    router = APIRouter()

    @router.post("/v1/captions", **openapi.captions_operation())
    async def captions(request: Request) -> Response:
        media_type = negotiate(_accept(request), CAPTION_TYPES)
        with ExitStack() as stack:
            ticket = stack.enter_context(engine.admit(client_address(request.scope)))
            parsed = parse_captions(engine, request, await read_image(request, engine.settings, ticket))
            deadline = engine.deadline()
            if media_type == EVENTS and parsed.regions:
                raise option_error("regions", "regions are captioned together, not word by word; accept another type than events")
            if media_type == EVENTS:
                prepare = prepare_image(engine, parsed, ticket)
                prepared = await engine.within(deadline, disconnected(request), prepare)
                events = NativeEvents(engine, parsed, prepared.view)
                return hold_until_sent(streaming_response(engine, parsed, prepared, deadline, events), stack)
            work = _caption(engine, request, parsed, ticket, media_type)
            return hold_until_sent(await engine.within(deadline, disconnected(request), work), stack)

    @router.post("/v1/captions/batch", **openapi.batch_operation())
    async def captions_batch(request: Request) -> Response:
        media_type = negotiate(_accept(request), BATCH_TYPES)
        with ExitStack() as stack:
            ticket = stack.enter_context(engine.admit(client_address(request.scope)))
            parsed = parse_captions(engine, request, await read_images(request, engine.settings, ticket))
            if parsed.regions:
                raise option_error("regions", "regions are those of one image; send it to /v1/captions")
            work = _caption_batch(engine, request, parsed, media_type)
            return hold_until_sent(await engine.within(engine.deadline(), disconnected(request), work), stack)

    @router.post("/v1/explanations", **openapi.explanations_operation())
    async def explanations(request: Request) -> Response:
        media_type = negotiate(_accept(request), EXPLANATION_TYPES)
        with ExitStack() as stack:
            ticket = stack.enter_context(engine.admit(client_address(request.scope)))
            parsed = parse_explanation(engine, request, await read_image(request, engine.settings, ticket))
            work = _caption(engine, request, parsed, ticket, media_type)
            return hold_until_sent(await engine.within(engine.deadline(), disconnected(request), work), stack)

    if engine.settings.admin_keys_file:

        @router.post("/v1/models/{name}/load", **openapi.load_operation())
        async def load(name: str, request: Request) -> Response:
            with engine.admission.open(client_address(request.scope)) as ticket:
                document = await read_json(request, engine.settings, ticket)
                options = parse_options(LoadOptions, document, is_json=True)
                return JSONResponse(model_json(name, await engine.load(name, options.checkpoint)))

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models", **openapi.MODELS)
    async def models() -> Response:
        data = [model_json(name, captioner) for name, captioner in engine.captioners.items()]
        return JSONResponse({"object": "list", "data": data})

    @router.head("/livez", include_in_schema=False)
    @router.get("/livez", **openapi.LIVE)
    async def livez() -> Response:
        if not engine.is_alive:
            raise retry_error("not_ready", "the model thread makes no progress; the service restarts", 5)
        return JSONResponse({"status": "alive"})

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", include_in_schema=False)
    @router.head("/health", include_in_schema=False)
    @router.get("/health", include_in_schema=False)
    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        if engine.unready_code:
            raise retry_error(engine.unready_code, "this process accepts no new work; use another one", 5)
        return JSONResponse({"status": "ready"})

    @router.get("/version", **openapi.VERSION_PAGE)
    async def version() -> Response:
        return JSONResponse({"version": VERSION})

    if engine.settings.metrics:

        @router.get("/metrics", **openapi.METRICS)
        async def metrics() -> Response:
            return Response(engine.metrics.text(), media_type=METRICS_TYPE)

    @router.get("/problems/{code}", **openapi.PROBLEM_PAGE)
    async def problem_page(code: str) -> Response:
        if code not in ERRORS:
            raise ServiceError("unknown_path", f"there is no problem {code!r}; there are {', '.join(ERRORS)}")
        kind = ERRORS[code]
        return PlainTextResponse(f"{kind.status} {code}: {kind.title}.\n{kind.explanation}\n")

    return router


async def _caption(engine: Engine, request: Request, parsed: ParsedRequest, ticket: Ticket, media_type: str) -> Response:
    """Decode an image, caption or explain it, and return the response. Raises ServiceError."""
    edge = THUMBNAIL_EDGE if media_type in (PNG, HTML) else 0
    prepared = await prepare_image(engine, parsed, ticket, edge)
    result = await caption_image(engine, parsed, prepared, text_only=media_type == TEXT)
    return await caption_response(engine, request, parsed, prepared, result, media_type)


async def _caption_batch(engine: Engine, request: Request, parsed: ParsedRequest, media_type: str) -> Response:
    """Caption every image of a batch; the error of one is its own entry, the others are captioned."""

    async def one(image: bytes | str | ServiceError) -> dict[str, Any] | str:
        ticket = Ticket(engine.admission, "")  # of this image's pixels
        try:
            if isinstance(image, ServiceError):
                raise image
            prepared = await engine.prepare(parsed.captioner, image, ticket)
            caption_request = parsed.caption_request(prepared.view, text_only=media_type == TEXT)
            result = await engine.caption(parsed.captioner, prepared, caption_request, parsed.id)
            if media_type == TEXT:
                return caption_lines(result)
            check_map_values(parsed, result, num_images=len(parsed.images))
            return await engine.in_writer(lambda: body_json(parsed, prepared.view, result))
        except TextError as error:  # the prompt is that of all images
            raise option_error("prompt", str(error)) from error
        except ServiceError as error:
            return failed(error)
        except Exception as error:
            _LOG.error("bug id=%s", parsed.id, exc_info=error)
            return failed(internal_error())
        finally:
            ticket.close()

    def failed(error: ServiceError) -> dict[str, Any] | str:
        return f"error: {error.detail}\n" if media_type == TEXT else problem_of(engine, parsed, error)

    data = await gather([one(image) for image in parsed.images])
    if media_type == TEXT:
        return PlainTextResponse("".join(map(str, data)))
    return await json_response(engine, request, MAX_MAP_VALUES, lambda: {"object": "list", "data": data})


def _accept(request: Request) -> str:
    return ", ".join(request.headers.getlist("accept"))
