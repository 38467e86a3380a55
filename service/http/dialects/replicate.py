"""Predictions: POST /predictions of Cog, POST /v1/predictions and /v1/models/OWNER/NAME/predictions of Replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import CaptionResult, ImageView, Word
from service.errors import ERRORS, ServiceError, option_error
from service.http.body import read_document
from service.http.dialects.foreign import (
    Call,
    DetailedBody,
    ForeignDialect,
    ForeignEvents,
    Outcome,
    decoding_options,
    get_operation,
    image_or_url,
    json_content,
    native_options,
    operation,
    parse_body,
    serve,
)
from service.http.dialects.native.json_body import sortable_id
from service.http.dialects.native.outputs import EVENTS, JSON
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.native.problems import MEDIA_TYPE, problem_json, problem_response
from service.http.dialects.native.schemas import ProblemBody
from service.http.dialects.streaming import event
from service.http.negotiation import negotiate
from service.runtime import Engine, Ticket


class PredictionBody(DetailedBody):
    """A request of a prediction."""

    id: str | None = Field(None, max_length=200, description="text of at most 200 characters")
    input: dict[str, Any] = Field(description="an object with image, a data: URL or a URL, and options of /v1/captions")
    version: str | None = Field(None, description="NAME or OWNER/NAME:NAME of a checkpoint")
    webhook: str | None = Field(None, description="absent: the response has the prediction")


class ReplicateDialect(ForeignDialect):
    """Predictions that have succeeded when they are returned; errors are problems, as Replicate has them."""

    name = "replicate"
    paths = ("/predictions", "/v1/predictions")

    schemas: Sequence[type[BaseModel]] = (PredictionBody,)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        documented = operation(
            "Predict the caption of an image (Cog, Replicate)",
            content=json_content(PredictionBody),
            media_types=(JSON, EVENTS),
            error=ProblemBody,
            error_type=MEDIA_TYPE,
            status=lambda code: ERRORS[code].status,
        )

        async def answer(request: Request, model: str | None = None) -> Response:
            media_type = negotiate(", ".join(request.headers.getlist("accept")), (JSON, EVENTS))

            async def read(request: Request, ticket: Ticket) -> Call:
                body = parse_body(PredictionBody, await read_document(request, engine.settings, ticket))
                return _call(body, model, is_stream=media_type == EVENTS)

            return await serve(engine, request, read, _prediction, _PredictionEvents)

        @router.post("/predictions", **documented)
        async def predictions(request: Request) -> Response:
            return await answer(request)

        @router.post("/v1/predictions", **documented)
        async def replicate_predictions(request: Request) -> Response:
            return await answer(request)

        @router.post("/v1/models/{owner}/{name}/predictions", **documented)
        async def model_predictions(owner: str, name: str, request: Request) -> Response:
            return await answer(request, name)

        @router.head("/health-check", include_in_schema=False)
        @router.get(
            "/health-check", **get_operation("Whether predictions are answered (Cog)", ProblemBody, error_type=MEDIA_TYPE)
        )
        async def health_check() -> Response:
            return JSONResponse({"status": "STARTING" if engine.unready_code else "READY"})

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as a problem, whose pointers say that options are in `input`."""
        options = [
            option if option.name in PredictionBody.model_fields else replace(option, within=("input",))
            for option in error.options
        ]
        return problem_response(request, ServiceError(error.code, error.detail, options, error.headers))


def _call(body: PredictionBody, model: str | None, *, is_stream: bool) -> Call:
    """Return the native request. Raises ServiceError."""
    if body.webhook:
        raise option_error("webhook", "webhook is set; this service calls none: leave it out, the response has the prediction")
    version = (body.version or "").rpartition(":")[2] or None
    options, has_details = native_options(body.sightline, {**decoding_options(body.input), "model": model or version})
    image = image_or_url(body.input.get("image"), "image")
    return Call(image=image, options=options, has_details=has_details, is_stream=is_stream, body=body)


def _prediction(outcome: Outcome) -> dict[str, Any]:
    seconds = sum(outcome.result.timing.as_dict().values()) / 1e3
    now = datetime.now(UTC)
    return {
        **_head(outcome.call.body, outcome.parsed),
        "status": "succeeded",
        "output": outcome.caption.text,
        "error": None,
        "logs": "",
        "metrics": {"predict_time": seconds},
        "created_at": (now - timedelta(seconds=seconds)).isoformat(),
        "started_at": (now - timedelta(seconds=seconds)).isoformat(),
        "completed_at": now.isoformat(),
        "urls": {},
        **outcome.details(),
    }


def _head(body: PredictionBody, parsed: ParsedRequest) -> dict[str, Any]:
    """Return what is known at the start; the image is not sent back."""
    values = decoding_options(body.input)
    return {"id": body.id or sortable_id(), "model": f"sightline/{parsed.model}", "version": parsed.model, "input": values}


class _PredictionEvents(ForeignEvents):
    """Writes `start`, an `output` per word, and `completed`, or `error`."""

    def __init__(self, call: Call, parsed: ParsedRequest, view: ImageView) -> None:
        super().__init__(call, parsed, view)
        self._head = _head(call.body, parsed)

    def start(self) -> bytes:
        """Return the event of a prediction before its first word."""
        return event("start", {**self._head, "status": "processing"})

    def word(self, word: Word) -> bytes:
        """Return the event of a word."""
        return event("output", {"chunk": word.before + word.text})

    def end(self, result: CaptionResult) -> bytes:
        """Return the rest of the text, and the event with the whole prediction."""
        outcome = self._outcome(result)
        rest = event("output", {"chunk": outcome.caption.after}) if outcome.caption.after else b""
        return rest + event("completed", {**_prediction(outcome), **self._head})

    def error(self, error: ServiceError) -> bytes:
        """Return the event of a problem."""
        return event("error", problem_json(error, self._parsed.id, is_json=True))
