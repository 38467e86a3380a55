"""Azure Image Analysis 4.0 (API version 2023-10-01): POST /computervision/imageanalysis:analyze, captions and dense captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import Box, Caption, dense_tasks, sniff_format
from service.errors import ServiceError, option_error
from service.http.body import read_bytes
from service.http.dialects.foreign import (
    Call,
    ForeignBody,
    ForeignDialect,
    Outcome,
    confidence_of,
    error_text,
    form_image,
    json_content,
    operation,
    parse_body,
    serve,
    status_of,
)
from service.http.json_bodies import json_object
from service.runtime import Engine, Ticket

_PATH = "/computervision/imageanalysis:analyze"
_MODEL_VERSIONS = ("", "latest", "2023-10-01")
_FEATURES = ("caption", "densecaptions")
_OTHER_FEATURES = ("tags", "objects", "read", "smartcrops", "people")
_MAX_DENSE = 10  # captions, that of the whole image included
_CODES = {  # the service's code, and the inner one that says more
    "missing_key": ("401", None),
    "wrong_key": ("401", None),
    "unknown_model": ("InvalidRequest", "InvalidModelVersion"),
    "broken_image": ("InvalidRequest", "InvalidImageFormat"),
    "broken_base64": ("InvalidRequest", "InvalidImageFormat"),
    "unsupported_image_format": ("InvalidRequest", "InvalidImageFormat"),
    "empty_body": ("InvalidRequest", "InvalidImageFormat"),
    "too_many_pixels": ("InvalidRequest", "InvalidImageSize"),
    "body_too_large": ("InvalidRequest", "InvalidImageSize"),
    "host_not_allowed": ("InvalidRequest", "InvalidImageUrl"),
    "rate_limited": ("429", None),
    "unknown_path": ("404", None),
    "internal": ("InternalServerError", None),
    "overloaded": ("ServiceUnavailable", None),
    "not_ready": ("ServiceUnavailable", None),
    "draining": ("ServiceUnavailable", None),
    "deadline_exceeded": ("Timeout", None),
}
_OPTION_CODES = {
    "features": "NotSupportedVisualFeature",
    "language": "NotSupportedLanguage",
    "url": "InvalidImageUrl",
    "model-version": "InvalidModelVersion",
}
# Azure's gender-neutral captions: "woman" and "man" become "person", "boy" and "girl" "child".
_NEUTRAL = {
    "man": "person", "woman": "person", "men": "people", "women": "people",
    "boy": "child", "girl": "child", "boys": "children", "girls": "children",
}  # fmt: skip
_TEXT = {"type": "string"}
_PARAMETERS: list[dict[str, Any]] = [
    {"name": "api-version", "in": "query", "required": True, "schema": _TEXT},
    {
        "name": "features",
        "in": "query",
        "required": True,
        "schema": {"enum": ["caption", "denseCaptions", "caption,denseCaptions"]},
    },
    {"name": "language", "in": "query", "required": False, "schema": _TEXT},
    {"name": "gender-neutral-caption", "in": "query", "required": False, "schema": {"type": "boolean"}},
    {"name": "model-version", "in": "query", "required": False, "schema": _TEXT},
    {"name": "model-name", "in": "query", "required": False, "schema": _TEXT},
]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"image": _BINARY["schema"]}}}


class AzureInnerError(BaseModel):
    """The more special code of an error."""

    code: str
    message: str


class AzureErrorBody(BaseModel):
    """What is wrong."""

    code: str
    message: str
    innererror: AzureInnerError | None = None


class AzureError(BaseModel):
    """The body of an error."""

    error: AzureErrorBody


class AnalyzeBody(ForeignBody):
    """A request with the URL of an image."""

    url: str = Field(description="an https URL, if the service's settings allow its host")


class AzureDialect(ForeignDialect):
    """Captions with their confidence, as Azure's client libraries read them."""

    name = "azure"
    schemas: Sequence[type[BaseModel]] = (AzureError, AnalyzeBody)
    paths = ("/computervision",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the route."""
        router = APIRouter()
        content = {"application/octet-stream": _BINARY, "multipart/form-data": _FORM, **json_content(AnalyzeBody)}
        documented = operation(
            "Analyze an image: its caption (Azure)",
            content=content,
            error=AzureError,
            parameters=_PARAMETERS,
        )

        @router.post(_PATH, **documented)
        async def analyze(request: Request) -> Response:
            features, options = _features(request), _options(request)
            is_neutral = request.query_params.get("gender-neutral-caption", "").lower() == "true"

            async def read(request: Request, ticket: Ticket) -> Call:
                image = _image(request, await read_bytes(request, engine.settings, ticket))
                is_dense = "densecaptions" in features
                if is_dense:
                    _check_dense(engine, options.get("model"))
                return Call(image=image, options=options | {"dense": is_dense}, whole=options if is_dense else None)

            return await serve(engine, request, read, lambda outcome: _analysis(outcome, features, is_neutral=is_neutral))

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as Azure writes it."""
        code, inner = _CODES.get(error.code, ("InvalidRequest", None))
        if error.options:
            inner = _OPTION_CODES.get(error.options[0].name, "InvalidParameter")
        message = error_text(error)
        body: dict[str, Any] = {"code": code, "message": message}
        if inner is not None:
            body["innererror"] = {"code": inner, "message": message}
        headers = {**error.headers, "x-ms-error-code": code}
        return JSONResponse({"error": body}, status_of(error.code), headers=headers)


def _features(request: Request) -> tuple[str, ...]:
    """Return the features of the query, in lower case. Raises ServiceError."""
    query = request.query_params
    if not query.get("api-version"):
        raise option_error("api-version", "the query has no api-version; send api-version=2023-10-01", in_query=True)
    features = tuple(name.strip().lower() for name in query.get("features", "").split(",") if name.strip())
    if other := [name for name in features if name not in _FEATURES]:
        known = "is not offered" if other[0] in _OTHER_FEATURES else "does not exist"
        detail = f"the feature {other[0][:40]!r} {known}; this service has caption and, with some checkpoints, denseCaptions"
        raise option_error("features", detail, in_query=True)
    if not features:
        raise option_error("features", "the query has no features; send features=caption", in_query=True)
    return features


def _check_dense(engine: Engine, model: str | None) -> None:
    """Raises ServiceError if a checkpoint does not locate what it describes."""
    name, captioner = engine.captioner(model)
    if not dense_tasks(captioner.config.tasks):
        detail = f"the feature 'denseCaptions' is not offered by {name!r}, which does not locate what it describes; send caption"
        raise option_error("features", detail, in_query=True)


def _options(request: Request) -> dict[str, Any]:
    """Return the native options of the query. Raises ServiceError."""
    query = request.query_params
    version = query.get("model-version", "latest")
    if version not in _MODEL_VERSIONS:
        raise option_error("model-version", f"model-version is {version[:40]!r}; send latest, or model-name", in_query=True)
    options: dict[str, Any] = {"maps": "none"}
    if language := query.get("language"):
        options["language"] = language
    if name := query.get("model-name"):
        options["model"] = name
    return options


def _image(request: Request, data: bytes) -> bytes | str:
    """Return the image of a body: bytes, the first file of a form, or the URL in JSON. Raises ServiceError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return form_image(request, data)
    if kind == "application/json" and not sniff_format(data):
        return parse_body(AnalyzeBody, json_object(data)).url
    if not data:
        raise ServiceError("empty_body", "the body has 0 bytes; send an image")
    return data


def _analysis(outcome: Outcome, features: tuple[str, ...], *, is_neutral: bool) -> dict[str, Any]:
    width, height = outcome.view.source_size
    whole = outcome.caption if outcome.whole is None else outcome.whole.best

    def values(caption: Caption) -> dict[str, Any]:
        text = _neutral_text(caption) if is_neutral else caption.text
        return {"text": text, "confidence": confidence_of(caption)}

    body: dict[str, Any] = {"modelVersion": outcome.parsed.model}
    if "caption" in features:
        body["captionResult"] = values(whole)
    if "densecaptions" in features:
        parts = [(whole, Box(0, 0, width, height))]
        parts += [(caption, caption.region) for caption in outcome.result.captions if caption.region is not None]
        dense = [values(caption) | {"boundingBox": _bounding_box(region)} for caption, region in parts[:_MAX_DENSE]]
        body["denseCaptionsResult"] = {"values": dense}
    return body | {"metadata": {"width": width, "height": height}}


def _bounding_box(region: Box) -> dict[str, int]:
    x0, y0, x1, y1 = (round(edge) for edge in (region.x0, region.y0, region.x1, region.y1))
    return {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0}


def _neutral_text(caption: Caption) -> str:
    """Return the caption with Azure's gender-neutral words."""
    pieces = []
    for word in caption.words:
        neutral = _NEUTRAL.get(word.text.lower(), word.text)
        pieces += [word.before, neutral.capitalize() if word.text[:1].isupper() else neutral]
    return "".join([*pieces, caption.after])
