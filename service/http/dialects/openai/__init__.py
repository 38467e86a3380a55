"""OpenAI's chat completions and responses (specification 2.3.0, 2026): POST /v1/chat/completions and /v1/responses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError
from service.http.dialects.foreign import ForeignDialect, get_operation, status_of
from service.http.dialects.native.json_body import model_json
from service.http.dialects.openai.chat import ChatBody, add_chat
from service.http.dialects.openai.errors import OpenAIError, error_json
from service.http.dialects.openai.responses import ResponsesBody, add_responses
from service.runtime import Engine

_MODEL_PATH = re.compile(r"/v1/models/[^/]+")


class OpenAIDialect(ForeignDialect):
    """The list /v1/models is the native one, which has OpenAI's members."""

    name = "openai"
    schemas: Sequence[type[BaseModel]] = (OpenAIError, ChatBody, ResponsesBody)
    paths = ("/v1/chat/completions", "/v1/responses")

    def owns(self, path: str) -> bool:
        """Return whether it is one of the two paths, or that of one model."""
        return super().owns(path) or _MODEL_PATH.fullmatch(path) is not None

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        add_chat(router, engine)
        add_responses(router, engine)

        @router.get("/v1/models/{name}", **get_operation("One checkpoint", OpenAIError, "unknown_model"))
        async def model(name: str) -> Response:
            chosen, captioner = engine.captioner(name)
            return JSONResponse(model_json(chosen, captioner))

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as OpenAI writes it."""
        return JSONResponse(error_json(error), status_of(error.code), headers=error.headers)
