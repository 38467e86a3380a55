"""The HTTP APIs that the service offers. To add one: a module with a Dialect, and its entry in DIALECTS.

A dialect parses requests into what the engine takes and renders what it returns or raises. Engine and scheduler do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ServiceError
from service.http.dialects.azure import AzureDialect
from service.http.dialects.huggingface import HuggingFaceDialect
from service.http.dialects.ibm_max import MaxDialect
from service.http.dialects.mcp import McpDialect
from service.http.dialects.moondream import MoondreamDialect
from service.http.dialects.native.dialect import NativeDialect
from service.http.dialects.ollama import OllamaDialect
from service.http.dialects.open_inference import OpenInferenceDialect
from service.http.dialects.openai import OpenAIDialect
from service.http.dialects.replicate import ReplicateDialect
from service.runtime import Engine


class Dialect(Protocol):
    """One HTTP API over the engine."""

    name: str
    schemas: Sequence[type[BaseModel]]  # that the OpenAPI document of its routes refers to

    def owns(self, path: str) -> bool:
        """Return whether requests to `path` are answered in this API's shapes, errors before routing included."""
        ...

    def routes(self, engine: Engine) -> APIRouter:
        """Return its routes."""
        ...

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the response to a request that failed, whatever raised the error: security, routing or a route."""
        ...


# The first dialect that owns a path answers; the native one owns every path.
DIALECTS: tuple[Dialect, ...] = (
    OpenAIDialect(),
    OllamaDialect(),
    HuggingFaceDialect(),
    AzureDialect(),
    OpenInferenceDialect(),
    MaxDialect(),
    MoondreamDialect(),
    ReplicateDialect(),
    McpDialect(),
    NativeDialect(),
)
