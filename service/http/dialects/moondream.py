"""Moondream's caption endpoint: POST /v1/caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import CaptionResult, Word
from service.errors import ServiceError
from service.http.body import read_document
from service.http.dialects.completions import token_limit
from service.http.dialects.foreign import (
    Call,
    DetailedBody,
    ForeignBody,
    ForeignDialect,
    ForeignEvents,
    Outcome,
    error_text,
    image_or_url,
    json_content,
    native_options,
    operation,
    parse_body,
    sampling_options,
    serve,
    status_of,
)
from service.http.dialects.native.outputs import EVENTS, JSON
from service.http.dialects.openai.errors import error_type
from service.http.dialects.streaming import data_event
from service.runtime import Engine, Ticket

_LENGTHS = {"short": {"length_penalty": -2.0}, "normal": {}, "long": {"length_penalty": 3.0}}  # normal: the checkpoint's


class MoondreamErrorBody(BaseModel):
    """What is wrong."""

    message: str
    type: str
    code: str


class MoondreamError(BaseModel):
    """The body of an error."""

    error: MoondreamErrorBody


class MoondreamSettings(ForeignBody):
    """The settings that have an effect."""

    temperature: float | None = Field(None, ge=0, le=5, description="a number from 0 to 5; 0 or none: not sampled")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    max_tokens: int | None = Field(None, ge=1, description="a positive integer")


class MoondreamBody(DetailedBody):
    """A request of /v1/caption."""

    image_url: str = Field(description="a data: URL, or a URL")
    length: Literal["short", "normal", "long"] | None = Field(None, description="short, normal or long: the length penalty")
    stream: bool | None = Field(None, description="true or false")
    model: str | None = Field(None, description="a name from /v1/models")
    settings: MoondreamSettings | None = Field(None, description="an object of settings")


class MoondreamDialect(ForeignDialect):
    """Captions as Moondream's clients read them."""

    name = "moondream"
    schemas: Sequence[type[BaseModel]] = (MoondreamError, MoondreamBody)
    paths = ("/v1/caption",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the route."""
        router = APIRouter()
        documented = operation(
            "Caption an image (Moondream)",
            content=json_content(MoondreamBody),
            media_types=(JSON, EVENTS),
            error=MoondreamError,
        )

        @router.post("/v1/caption", **documented)
        async def caption(request: Request) -> Response:
            request_id = request.scope["state"]["request_id"]

            async def read(request: Request, ticket: Ticket) -> Call:
                return _call(engine, parse_body(MoondreamBody, await read_document(request, engine.settings, ticket)))

            def render(outcome: Outcome) -> dict[str, Any]:
                return {"request_id": request_id, "caption": outcome.caption.text, **outcome.details()}

            return await serve(engine, request, read, render, _MoondreamEvents)

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error in the shape of OpenAI's, which Moondream uses."""
        return JSONResponse(_error_json(error), status_of(error.code), headers=error.headers)


def _call(engine: Engine, body: MoondreamBody) -> Call:
    """Return the native request. Raises ServiceError."""
    _, captioner = engine.captioner(body.model or None)
    options: dict[str, Any] = {"model": body.model or None, **_LENGTHS[body.length or "normal"]}
    if body.settings is not None:
        limit = token_limit(body.settings.max_tokens, captioner.config.generation.max_new_tokens)
        options |= {**sampling_options(body.settings.temperature, body.settings.top_p), **limit}
    native, has_details = native_options(body.sightline, options)
    image = image_or_url(body.image_url, "image_url")
    return Call(image=image, options=native, has_details=has_details, is_stream=bool(body.stream))


class _MoondreamEvents(ForeignEvents):
    """Writes a chunk per word, and a last one that is complete."""

    def word(self, word: Word) -> bytes:
        """Return the chunk of a word."""
        return data_event({"chunk": word.before + word.text, "completed": False, "request_id": self._parsed.id})

    def end(self, result: CaptionResult) -> bytes:
        """Return the last chunk."""
        outcome = self._outcome(result)
        last = {"chunk": outcome.caption.after, "completed": True, "request_id": self._parsed.id}
        return data_event(last | outcome.details())

    def error(self, error: ServiceError) -> bytes:
        """Return the event of an error."""
        return data_event(_error_json(error))


def _error_json(error: ServiceError) -> dict[str, Any]:
    return {"error": {"message": error_text(error), "type": error_type(status_of(error.code)), "code": error.code}}
