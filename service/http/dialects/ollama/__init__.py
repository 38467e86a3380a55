"""Ollama's API (0.13, 2026): POST /api/generate, /api/chat and /api/show, GET /api/tags, /api/ps and /api/version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError
from service.http.body import read_document
from service.http.dialects.foreign import (
    ForeignBody,
    ForeignDialect,
    get_operation,
    json_content,
    operation,
    parse_body,
    status_of,
)
from service.http.dialects.native.outputs import JSON
from service.http.dialects.ollama.generate import NDJSON, GenerateBody, OllamaChatBody, answer
from service.http.dialects.ollama.models import OllamaError, error_json, model_entry, model_name, show_json, timestamp
from service.http.security import client_address
from service.runtime import Engine

_VERSION = "0.13.0"  # of the API; some clients read it
_KEEP_ALIVE = timedelta(days=365)  # checkpoints are never unloaded


class ShowBody(ForeignBody):
    """A request of /api/show."""

    model: str | None = Field(None, description="a name from /api/tags")
    name: str | None = Field(None, description="the same, as older clients send it")


class OllamaDialect(ForeignDialect):
    """Captions as Ollama's responses; its clients send and get models as NAME:latest."""

    name = "ollama"
    schemas: Sequence[type[BaseModel]] = (OllamaError, GenerateBody, OllamaChatBody, ShowBody)
    paths = ("/api",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()

        @router.post("/api/generate", **_post("Generate a caption (Ollama)", GenerateBody, JSON, NDJSON))
        async def generate(request: Request) -> Response:
            return await answer(engine, request, GenerateBody)

        @router.post("/api/chat", **_post("Chat about an image (Ollama)", OllamaChatBody, JSON, NDJSON))
        async def chat(request: Request) -> Response:
            return await answer(engine, request, OllamaChatBody)

        @router.post("/api/show", **_post("One model (Ollama)", ShowBody, JSON))
        async def show(request: Request) -> Response:
            with engine.admission.open(client_address(request.scope)) as ticket:
                body = parse_body(ShowBody, await read_document(request, engine.settings, ticket))
            _, captioner = engine.captioner(model_name(body.model or body.name, engine.captioners))
            return JSONResponse(show_json(captioner))

        @router.get("/api/tags", **_get("The models (Ollama)"))
        async def tags() -> Response:
            return JSONResponse({"models": [model_entry(name, captioner) for name, captioner in engine.captioners.items()]})

        @router.get("/api/ps", **_get("The loaded models (Ollama)"))
        async def ps() -> Response:
            expires = {"expires_at": timestamp(datetime.now(UTC) + _KEEP_ALIVE)}
            models = [model_entry(name, captioner) for name, captioner in engine.captioners.items()]
            return JSONResponse({"models": [{**model, **expires, "size_vram": 0} for model in models]})

        @router.head("/api/version", include_in_schema=False)
        @router.get("/api/version", **_get("The version of the API (Ollama)"))
        async def version() -> Response:
            return JSONResponse({"version": _VERSION})

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as Ollama writes it."""
        return JSONResponse(error_json(error), status_of(error.code), headers=error.headers)


def _post(summary: str, kind: type[BaseModel], *media_types: str) -> dict[str, Any]:
    return operation(summary, content=json_content(kind), media_types=media_types, error=OllamaError)


def _get(summary: str) -> dict[str, Any]:
    return get_operation(summary, OllamaError)
