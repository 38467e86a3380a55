"""IBM's Model Asset Exchange, the image caption generator: POST /model/predict with a form, GET /model/metadata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError
from service.http.body import read_bytes
from service.http.dialects.foreign import (
    Call,
    ForeignDialect,
    Outcome,
    error_text,
    form_image,
    get_operation,
    operation,
    serve,
    status_of,
)
from service.runtime import Engine, Ticket

_NUM_CAPTIONS = 3  # as that service returns
_IMAGE = {"type": "string", "format": "binary"}
_FORM = {"multipart/form-data": {"schema": {"type": "object", "required": ["image"], "properties": {"image": _IMAGE}}}}


class MaxError(BaseModel):
    """The body of an error."""

    status: str
    message: str


class MaxDialect(ForeignDialect):
    """Captions with their probability, and an index as text."""

    name = "ibm_max"
    schemas: Sequence[type[BaseModel]] = (MaxError,)
    paths = ("/model",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        summary = "The three best captions of an image (IBM MAX)"

        @router.post("/model/predict", **operation(summary, content=_FORM, error=MaxError))
        async def predict(request: Request) -> Response:
            async def read(request: Request, ticket: Ticket) -> Call:
                _, captioner = engine.captioner(None)
                num_beams = max(_NUM_CAPTIONS, captioner.config.generation.num_beams)
                options = {"strategy": "beam", "num_beams": num_beams, "num_return_sequences": _NUM_CAPTIONS}
                image = form_image(request, await read_bytes(request, engine.settings, ticket), "image")
                return Call(image=image, options={"maps": "none", "reliance": False, **options})

            return await serve(engine, request, read, _predictions)

        @router.get("/model/metadata", **get_operation("The model (IBM MAX)", MaxError))
        async def metadata() -> Response:
            name, captioner = engine.captioner(None)
            return JSONResponse(
                {
                    "id": name,
                    "name": f"Sightline {name}",
                    "description": "Image captions in which every word shows where in the image it came from.",
                    "type": "Image-To-Text Translation",
                    "license": captioner.config.license,
                    "source": "/v1/models",
                }
            )

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as IBM's service writes it."""
        body = {"status": "error", "message": error_text(error)}
        return JSONResponse(body, status_of(error.code), headers=error.headers)


def _predictions(outcome: Outcome) -> dict[str, Any]:
    captions = outcome.captions
    entries = [
        {"index": str(index), "caption": caption.text, "probability": math.exp(caption.log_probability)}
        for index, caption in enumerate(captions)
    ]
    return {"status": "ok", "predictions": entries}
