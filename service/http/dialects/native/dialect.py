"""The native API as a dialect."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ServiceError
from service.http.dialects.native.openapi import SCHEMAS
from service.http.dialects.native.problems import problem_response
from service.http.dialects.native.routes import build_router
from service.runtime import Engine


class NativeDialect:
    """The service's own API. It owns every path that no other dialect owns."""

    name: str = "native"
    schemas: Sequence[type[BaseModel]] = SCHEMAS

    def owns(self, path: str) -> bool:
        """Every path."""
        return True

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes of /v1, the probes, metrics and problem pages."""
        return build_router(engine)

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as application/problem+json."""
        return problem_response(request, error)
