"""What the OpenAPI document says of each operation: bodies, options, answers, and every error that can come."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.errors import MEDIA_TYPE, PROBLEMS
from service.intake import MAX_BATCH_IMAGES
from service.schemas import (
    BatchAnswer,
    CaptionOptions,
    CaptionsAnswer,
    ExplanationOptions,
    HealthAnswer,
    LoadOptions,
    ModelAnswer,
    ModelsAnswer,
    ProblemAnswer,
)

_REF = "#/components/schemas/{model}"
_DOCUMENTED: tuple[type[BaseModel], ...] = (
    BatchAnswer, CaptionOptions, CaptionsAnswer, ExplanationOptions, HealthAnswer, ModelsAnswer, ProblemAnswer,
)  # fmt: skip
# A grey PNG of 2 x 2 pixels: what somebody who tries an example sends.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNsYGBiYAAAApIAhPd8o1gAAAAASUVORK5CYII="
_ANYWHERE = ("method", "internal")
_KEYS = ("missing_key", "wrong_key", "rate_limited")
_INTAKE = (
    "empty_body", "broken_image", "broken_base64", "broken_multipart", "broken_json", "host_not_allowed",
    "unknown_model", "not_acceptable", "slow_body", "body_too_large", "too_many_pixels", "unsupported_media_type",
    "unsupported_image_format", "invalid_option", "overloaded", "not_ready", "deadline_exceeded", *_KEYS, *_ANYWHERE,
)  # fmt: skip


def captions_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/captions."""
    others = {
        "text/plain": {"schema": {"type": "string"}, "example": "a brown dog runs on grass\n"},
        "text/event-stream": {"schema": {"type": "string", "description": "events start, word, caption, error"}},
        "image/png": {"schema": {"type": "string", "format": "binary", "description": "a contact sheet"}},
        "text/html": {"schema": {"type": "string", "description": "a self-contained report"}},
    }
    return _operation("Caption a picture", CaptionOptions, "The captions, best first", others)


def batch_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/captions/batch."""
    operation = _operation("Caption many pictures", CaptionOptions, "Captions or problems, in order", {}, BatchAnswer)
    content = operation["openapi_extra"]["requestBody"]["content"]
    for kind in [kind for kind in content if kind not in ("multipart/form-data", "application/json")]:
        del content[kind]
    form, document = content["multipart/form-data"]["schema"], content["application/json"]["schema"]
    form["properties"] = {
        **form["properties"],
        "image": {"type": "array", "maxItems": MAX_BATCH_IMAGES, "items": form["properties"]["image"]},
    }
    listed = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_IMAGES, "items": document["properties"]["image"]}
    properties = {name: value for name, value in document["properties"].items() if name not in ("image", "url")}
    document |= {"required": ["images"], "properties": {"images": listed, **properties}}
    return operation


def explanations_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/explanations."""
    return _operation("Explain a caption that somebody else wrote", ExplanationOptions, "The caption with its maps", {})


def load_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/models/{name}/load."""
    codes = (*_KEYS, "unknown_model", "broken_json", "slow_body", "body_too_large", "invalid_option")
    operation = _simple("Put another checkpoint in the place of one, without losing a request", ModelAnswer, *codes, "overloaded")
    body = {"required": True, "content": {"application/json": {"schema": LoadOptions.model_json_schema()}}}
    return operation | {"openapi_extra": {"requestBody": body}}


def _operation(
    summary: str, options: type[BaseModel], answered: str, others: dict[str, Any], answer: type[BaseModel] = CaptionsAnswer
) -> dict[str, Any]:
    answers = {"application/json": _schema(answer), **others}
    return {
        "summary": summary,
        "responses": {200: {"description": answered, "content": answers}, **_problems(*_INTAKE)},
        "openapi_extra": {"parameters": _parameters(options), "requestBody": _request_body(options)},
    }


def _parameters(options: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the options as query parameters: for raw bytes; a form or JSON body holds its own.

    Without their defaults: a generated client would send those in the query, whatever stands in its body.
    """
    properties: dict[str, Any] = options.model_json_schema()["properties"]
    schemas = {name: {key: told for key, told in schema.items() if key != "default"} for name, schema in properties.items()}
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in schemas.items()
    ]


def _request_body(options: type[BaseModel]) -> dict[str, Any]:
    schema = options.model_json_schema()
    needed = schema.get("required", [])
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["image", *needed], "properties": {"image": binary, **schema["properties"]}}
    text = {"type": "string", "description": "base64, or a data: URL", "examples": [_PIXEL]}
    url = "https, instead of image, where the service's settings allow the host"
    document = {
        "type": "object",
        **({"required": needed} if needed else {}),
        "properties": {"image": text, "url": {"type": "string", "description": url}, **schema["properties"]},
        "additionalProperties": False,
    }
    raw = {name: {"schema": binary} for name in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")}
    return {
        "required": True,
        "content": {**raw, "multipart/form-data": {"schema": form}, "application/json": {"schema": document}},
    }


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: {"description": " · ".join(names), "content": {MEDIA_TYPE: _schema(ProblemAnswer)}}
        for status, names in by_status.items()
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(model=model.__name__)}}


def _simple(summary: str, model: type[BaseModel], *codes: str) -> dict[str, Any]:
    answer = {"description": summary, "content": {"application/json": _schema(model)}}
    return {"summary": summary, "responses": {200: answer, **_problems(*codes, *_ANYWHERE)}}


LIVE = _simple("Whether the process answers", HealthAnswer, "not_ready")
READY = _simple("Whether requests can be answered", HealthAnswer, "not_ready", "draining")
MODELS = _simple("The checkpoints that are served", ModelsAnswer)
METRICS: dict[str, Any] = {
    "summary": "What Prometheus reads",
    "responses": {
        200: {"description": "Metrics in Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_problems(*_ANYWHERE),
    },
}
PROBLEM_PAGE: dict[str, Any] = {
    "summary": "What a problem's code means",
    "responses": {
        200: {"description": "The explanation", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_problems("unknown_path", *_ANYWHERE),
    },
}


def describe(app: FastAPI) -> None:
    """Make the app's OpenAPI document hold every schema that the operations refer to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, schemas = models_json_schema([(model, "serialization") for model in _DOCUMENTED], ref_template=_REF)
            built.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = built
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
