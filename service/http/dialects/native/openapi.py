"""The OpenAPI document of each operation: bodies, options, responses, and every error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from service.errors import ERRORS
from service.http.body import MAX_BATCH_IMAGES
from service.http.dialects.native.outputs import (
    BATCH_TYPES,
    CAPTION_TYPES,
    EVENTS,
    EXPLANATION_TYPES,
    HTML,
    JSON,
    PNG,
    TEXT,
)
from service.http.dialects.native.problems import MEDIA_TYPE
from service.http.dialects.native.schemas import (
    BatchBody,
    CaptionOptions,
    CaptionsBody,
    ExplanationOptions,
    HealthBody,
    LoadOptions,
    ModelBody,
    ModelsBody,
    ProblemBody,
    VersionBody,
)
from service.http.openapi import SCHEMA_REF

SCHEMAS: tuple[type[BaseModel], ...] = (
    BatchBody, CaptionOptions, CaptionsBody, ExplanationOptions, HealthBody, ModelsBody, ProblemBody, VersionBody,
)  # fmt: skip
# A gray PNG of 2 x 2 pixels, as an example.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNsYGBiYAAAApIAhPd8o1gAAAAASUVORK5CYII="
_FORMS: dict[str, dict[str, Any]] = {  # of responses, but for JSON
    TEXT: {"schema": {"type": "string", "description": "captions, one in each line"}, "example": "a brown dog runs on grass\n"},
    EVENTS: {"schema": {"type": "string", "description": "events start, word, caption, error"}},
    PNG: {"schema": {"type": "string", "format": "binary", "description": "a contact sheet"}},
    HTML: {"schema": {"type": "string", "description": "a self-contained page"}},
}
CONNECTION_ERRORS = {  # service/http/connections.py; they have no body
    429: "too many connections of the client",
    431: "the request line and headers are too large, or there are too many headers",
}
_EVERYWHERE = ("method", "internal")
_KEYS = ("missing_key", "wrong_key", "rate_limited")
IMAGE_ERRORS = (
    "empty_body", "broken_image", "broken_base64", "broken_multipart", "broken_json", "host_not_allowed",
    "unknown_model", "not_acceptable", "slow_body", "body_too_large", "too_many_pixels", "unsupported_media_type",
    "broken_encoding", "unsupported_encoding", "unsupported_image_format",
    "invalid_option", "overloaded", "not_ready", "deadline_exceeded", *_KEYS, *_EVERYWHERE,
)  # fmt: skip


def captions_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/captions."""
    return _operation("Caption an image", CaptionOptions, "The captions, best first", CAPTION_TYPES)


def batch_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/captions/batch."""
    operation = _operation("Caption several images", CaptionOptions, "Captions or problems, in order", BATCH_TYPES, BatchBody)
    content = operation["openapi_extra"]["requestBody"]["content"]
    for name in [name for name in content if name not in ("multipart/form-data", "application/json")]:
        del content[name]
    form, document = content["multipart/form-data"]["schema"], content["application/json"]["schema"]
    form["properties"] = {
        **form["properties"],
        "image": {"type": "array", "maxItems": MAX_BATCH_IMAGES, "items": form["properties"]["image"]},
    }
    images = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_IMAGES, "items": document["properties"]["image"]}
    properties = {name: value for name, value in document["properties"].items() if name not in ("image", "url")}
    document |= {"required": ["images"], "properties": {"images": images, **properties}}
    return operation


def explanations_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/explanations."""
    summary = "Explain a caption that was written elsewhere"
    return _operation(summary, ExplanationOptions, "The caption with its maps", EXPLANATION_TYPES)


def load_operation() -> dict[str, Any]:
    """Return FastAPI's arguments for POST /v1/models/{name}/load."""
    codes = (*_KEYS, "unknown_model", "broken_json", "slow_body", "body_too_large", "invalid_option")
    operation = _simple("Replace a checkpoint without losing a request", ModelBody, *codes, "overloaded")
    body = {"required": True, "content": {"application/json": {"schema": LoadOptions.model_json_schema()}}}
    return operation | {"openapi_extra": {"requestBody": body}}


def _operation(
    summary: str,
    options: type[BaseModel],
    description: str,
    media_types: Sequence[str],
    body: type[BaseModel] = CaptionsBody,
) -> dict[str, Any]:
    content = {name: _schema(body) if name == JSON else _FORMS[name] for name in media_types}
    return {
        "summary": summary,
        "responses": {200: {"description": description, "content": content}, **_problems(*IMAGE_ERRORS)},
        "openapi_extra": {"parameters": _parameters(options), "requestBody": _request_body(options)},
    }


def _parameters(options: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the options as query parameters, for raw bytes; a form or JSON body has its own.

    Without their defaults: a generated client would send those in the query with every body.
    """
    properties: dict[str, Any] = options.model_json_schema()["properties"]
    schemas = {name: {key: value for key, value in schema.items() if key != "default"} for name, schema in properties.items()}
    schemas |= _regions_as_text(schemas)
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in schemas.items()
    ]


def _request_body(options: type[BaseModel]) -> dict[str, Any]:
    schema = options.model_json_schema()
    required = schema.get("required", [])
    binary = {"type": "string", "format": "binary"}
    fields = schema["properties"] | _regions_as_text(schema["properties"])
    form = {"type": "object", "required": ["image", *required], "properties": {"image": binary, **fields}}
    text = {"type": "string", "description": "base64, or a data: URL", "examples": [_PIXEL]}
    url = "https, instead of image, if the service's settings allow the host"
    document = {
        "type": "object",
        **({"required": required} if required else {}),
        "properties": {"image": text, "url": {"type": "string", "description": url}, **schema["properties"]},
        "additionalProperties": False,
    }
    raw = {name: {"schema": binary} for name in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")}
    return {
        "required": True,
        "content": {**raw, "multipart/form-data": {"schema": form}, "application/json": {"schema": document}},
    }


def _regions_as_text(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the option `regions`, if it is one, as a query or a form has it: JSON text."""
    if "regions" not in properties:
        return {}
    description = f"JSON text: {properties['regions']['description']}"
    return {"regions": {"type": "string", "description": description, "examples": ["[[0, 0, 320, 240]]"]}}


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the responses of errors, with those of any connection."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(ERRORS[code].status, []).append(code)
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": " · ".join(names), "content": {MEDIA_TYPE: _schema(ProblemBody)}}
        for status, names in by_status.items()
    }
    for status, reason in CONNECTION_ERRORS.items():
        response = responses.setdefault(status, {"description": ""})
        response["description"] = " · ".join(filter(None, [response["description"], reason]))
    return responses


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": SCHEMA_REF.format(model=model.__name__)}}


def _simple(summary: str, model: type[BaseModel], *codes: str) -> dict[str, Any]:
    response = {"description": summary, "content": {"application/json": _schema(model)}}
    return {"summary": summary, "responses": {200: response, **_problems(*codes, *_EVERYWHERE)}}


LIVE = _simple("Whether the process is alive", HealthBody, "not_ready")
READY = _simple("Whether requests are accepted", HealthBody, "not_ready", "draining")
MODELS = _simple("The checkpoints that are served", ModelsBody)
VERSION_PAGE = _simple("The version of the service", VersionBody)
METRICS: dict[str, Any] = {
    "summary": "Metrics for Prometheus",
    "responses": {
        200: {"description": "Metrics in Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_problems(*_EVERYWHERE),
    },
}
PROBLEM_PAGE: dict[str, Any] = {
    "summary": "The explanation of an error code",
    "responses": {
        200: {"description": "The explanation", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_problems("unknown_path", *_EVERYWHERE),
    },
}
