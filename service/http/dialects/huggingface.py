"""Hugging Face image-to-text: POST /models/NAME or / with an image, the response is a list of {"generated_text"}.

huggingface_hub and older JavaScript clients need a list; @huggingface/inference from 4.13.15 on needs one object, and sends its
version in User-Agent outside of browsers. It repeats a 503 at once and without end, so overload is a 429 here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import sniff_format
from service.errors import ServiceError, option_error
from service.http.body import read_bytes
from service.http.dialects.completions import token_limit
from service.http.dialects.foreign import (
    Call,
    DetailedBody,
    ForeignDialect,
    Outcome,
    decoding_options,
    error_text,
    image_or_url,
    json_content,
    native_options,
    operation,
    parse_body,
    serve,
    status_of,
)
from service.http.json_bodies import json_object
from service.runtime import Engine, Ticket

_JS_CLIENT = re.compile(r"@huggingface/inference/(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_OBJECT_SINCE = (4, 13, 15)
_GENERATION = ("generation_parameters", "generation_kwargs", "generate_kwargs")  # in parameters, by age of the client
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORMAT = {"name": "format", "in": "query", "required": False, "schema": {"enum": ["list", "object"]}}


class HuggingFaceError(BaseModel):
    """The body of an error."""

    error: str


class ImageToTextBody(DetailedBody):
    """A request with parameters."""

    inputs: str = Field(description="an image as base64, or its URL")
    parameters: dict[str, Any] | None = Field(None, description="an object; generation options have transformers' names")


class HuggingFaceDialect(ForeignDialect):
    """Captions as image-to-text pipelines return them."""

    name = "huggingface"
    schemas: Sequence[type[BaseModel]] = (HuggingFaceError, ImageToTextBody)
    paths = ("/models", "/pipeline/image-to-text")

    def owns(self, path: str) -> bool:
        """Return whether it is below its paths, or the root, to which a client posts whose model is this service's address."""
        return path == "/" or super().owns(path)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        content = {"image/*": _BINARY, "application/octet-stream": _BINARY, **json_content(ImageToTextBody)}
        documented = operation(
            "Image to text (Hugging Face)", content=content, error=HuggingFaceError, status=_status_of, parameters=[_FORMAT]
        )

        async def answer(request: Request, name: str | None) -> Response:
            is_object = _is_object(request)

            async def read(request: Request, ticket: Ticket) -> Call:
                return _call(engine, name, await read_bytes(request, engine.settings, ticket))

            return await serve(engine, request, read, lambda outcome: _response(outcome, is_object=is_object))

        @router.post("/", **documented)
        async def image_to_text(request: Request) -> Response:
            return await answer(request, None)

        @router.post("/models/{name:path}", **documented)
        async def image_to_text_of_model(name: str, request: Request) -> Response:
            return await answer(request, name)

        @router.post("/pipeline/image-to-text/{name:path}", **documented)
        async def image_to_text_pipeline(name: str, request: Request) -> Response:
            return await answer(request, name)

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as Hugging Face's inference API writes it."""
        return JSONResponse({"error": error_text(error)}, _status_of(error.code), headers=error.headers)


def _call(engine: Engine, name: str | None, data: bytes) -> Call:
    """Return the native request of an image or of a JSON object. Raises ServiceError."""
    if not data:
        raise ServiceError("empty_body", "the body has 0 bytes; send an image, or JSON with 'inputs'")
    if sniff_format(data) or data.lstrip()[:1] != b"{":
        options, has_details = native_options(None, {"model": name})
        return Call(image=data, options=options, has_details=has_details)
    body = parse_body(ImageToTextBody, json_object(data))
    _, captioner = engine.captioner(name)
    generation = _generation(body.parameters or {})
    if isinstance(limit := generation.get("max_new_tokens"), int):
        generation |= token_limit(limit, captioner.config.generation.max_new_tokens)
    options, has_details = native_options(body.sightline, {**generation, "model": name})
    return Call(image=image_or_url(body.inputs, "inputs"), options=options, has_details=has_details)


def _generation(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the parameters name; those that this service does not have are ignored. Raises ServiceError."""
    values = dict(parameters)
    for name in _GENERATION:
        nested = values.pop(name, None)
        if nested is not None and not isinstance(nested, dict):
            raise option_error(name, f"{name} must be an object")
        values |= nested or {}
    is_sampled, num_beams = values.pop("do_sample", None), values.get("num_beams")
    options = decoding_options(values)
    if is_sampled:
        options["strategy"] = "sample"
    elif num_beams == 1:
        options["strategy"] = "greedy"
    return options


def _response(outcome: Outcome, *, is_object: bool) -> dict[str, Any] | list[Any]:
    first, *others = [{"generated_text": caption.text} for caption in outcome.captions]
    best = {**first, **outcome.details()}
    return best if is_object else [best, *others]


def _is_object(request: Request) -> bool:
    """Return whether the client needs one object: by ?format=, else by its version."""
    chosen = request.query_params.get("format")
    if chosen is not None:
        if chosen not in ("list", "object"):
            raise option_error("format", f"format is {chosen[:40]!r}; it must be list or object", in_query=True)
        return chosen == "object"
    client = _JS_CLIENT.search(request.headers.get("user-agent", ""))
    return client is not None and tuple(map(int, client.groups())) >= _OBJECT_SINCE


def _status_of(code: str) -> int:
    status = status_of(code)
    return 429 if status == 503 else status
