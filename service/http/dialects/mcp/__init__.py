"""The Model Context Protocol over streamable HTTP: POST /mcp with the tools caption_image and explain_caption.

Needs the package mcp (extra `mcp`); it is imported by the first request, which takes more than a second. Stateless: no session.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from service.errors import ERRORS, ServiceError
from service.http.body import read_bytes
from service.http.dialects.foreign import ForeignDialect, error_text, operation
from service.http.json_bodies import json_object
from service.http.responses import hold_until_sent
from service.http.security import client_address
from service.runtime import Engine

_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_MAX_ID = 200  # characters
_SERVER_ERROR = -32000  # JSON-RPC 2.0, section 5.1: errors of the server
_BODY = {"application/json": {"schema": {"type": "object", "description": "a JSON-RPC 2.0 request of the protocol"}}}


class McpErrorBody(BaseModel):
    """What is wrong."""

    code: int
    message: str


class McpError(BaseModel):
    """The body of an error, as JSON-RPC has it."""

    jsonrpc: str
    id: str | None
    error: McpErrorBody


class McpDialect(ForeignDialect):
    """Tools for language models; an image that cannot be captioned is a tool's error, which the model reads."""

    name = "mcp"
    schemas: Sequence[type[BaseModel]] = (McpError,)
    paths = ("/mcp",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the route, or one that says what is missing."""
        router = APIRouter()
        documented = operation("Model Context Protocol, streamable HTTP", content=_BODY, error=McpError, status=_status_of)
        documented["responses"][202] = {"description": "a notification was accepted"}

        @router.post("/mcp", **documented)
        async def mcp(request: Request) -> Response:
            if importlib.util.find_spec("mcp") is None:
                raise ServiceError("unknown_path", "/mcp needs the Python package mcp: pip install mcp, then start again")
            _check_origin(request, engine.settings.cors_origins)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ServiceError("unsupported_media_type", f"the content type is {kind[:80]!r}; send application/json")
            with ExitStack() as stack:
                ticket = stack.enter_context(engine.admit(client_address(request.scope)))
                data = await read_bytes(request, engine.settings, ticket)
                _check_message(data)
                tools = await asyncio.to_thread(importlib.import_module, "service.http.dialects.mcp.tools")
                manager = tools.session_manager(engine, request, ticket)
                return hold_until_sent(_McpResponse(manager, data), stack)

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as JSON-RPC has it."""
        body = {"code": _SERVER_ERROR, "message": error_text(error)}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": body}, _status_of(error.code), headers=error.headers)


class _McpResponse(Response):
    """Lets the package answer a request whose body has been read."""

    def __init__(self, manager: Any, data: bytes) -> None:
        super().__init__()
        self._manager = manager
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bodies: list[Message] = [{"type": "http.request", "body": self._data, "more_body": False}]

        async def receive_again() -> Message:
            return bodies.pop() if bodies else await receive()

        async with self._manager.run():
            await self._manager.handle_request(scope, receive_again, send)


def _check_message(data: bytes) -> None:
    """Raises ServiceError (400) unless a body is one request or notification of JSON-RPC 2.0 that the package can read."""
    message = json_object(data)
    number = message.get("id")
    is_named = number is None or type(number) is int or (isinstance(number, str) and len(number) <= _MAX_ID)
    is_valid = message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str) and is_named
    try:
        from_json(data)  # the package's parser, whose limits are other ones
    except ValueError:
        is_valid = False
    if not (is_valid and isinstance(message.get("params", {}), dict)):
        expected = '{"jsonrpc": "2.0", "id": 1, "method": …, "params": {…}}'
        raise ServiceError("broken_json", f"the JSON is no request of JSON-RPC 2.0; send one such as {expected}")


def _check_origin(request: Request, cors_origins: str) -> None:
    """Raises ServiceError (403) for a page of another origin: its host name may be made to mean this machine (DNS rebinding)."""
    origin = request.headers.get("origin")
    allowed = [entry.strip() for entry in cors_origins.split(",")]
    if origin is None or "*" in allowed or origin in allowed:
        return
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        host = None
    if host not in _LOCAL_HOSTS:
        raise ServiceError("host_not_allowed", f"the origin {origin[:100]!r} is not in the setting cors_origins")


def _status_of(code: str) -> int:
    return ERRORS[code].status
