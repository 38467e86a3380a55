"""The application: routes over an engine, problems as answers, a request id and a log line for every request."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model import ALL_FORMATS, Captioner, ConfigError, ImageLimits
from service.engine import ClientLeft, Engine
from service.errors import Problem, problem_response
from service.metrics import Metrics
from service.openapi import describe
from service.routes import build_router
from service.security import Guard, read_keys
from service.settings import Settings

_LOG = logging.getLogger(__name__)
_TRACE = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")  # W3C Trace Context
_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,128}$")


def create_app(captioners: dict[str, Captioner], settings: Settings) -> FastAPI:
    """Return the application over captioners that are loaded and warm; the first one is the default.

    Raises ConfigError where the settings name a picture format that is not known.
    """
    engine = Engine(captioners, settings, image_limits(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        watch = asyncio.create_task(engine.watch(app.state.on_failure))
        try:
            yield
        finally:
            await asyncio.get_running_loop().run_in_executor(None, engine.stop)
            watch.cancel()  # last: the model may hang over what was accepted

    app = FastAPI(
        title="Sightline",
        version="1",
        description="Captions whose every word shows where in the picture it came from.",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # short names for generated clients
    )
    router = build_router(engine)
    # FastAPI's routes tell the document what there is. Those in front of them serve: nothing of these requests is left for
    # FastAPI to find out, and its looking costs a third of what a request costs without a network.
    plain = [Route(route.path, route.endpoint, methods=["POST"]) for route in _fixed(router) if route.methods == {"POST"}]
    app.router.routes.extend(plain)
    app.include_router(router)
    app.state.engine = engine
    app.state.on_failure = lambda: None  # whoever runs the process may end it
    app.state.routes = [*app.routes, *router.routes]  # what _methods looks through
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(ClientLeft, _on_client_left)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(
        Guard, keys=read_keys(settings.keys_file), admin_keys=read_keys(settings.admin_keys_file, "admin_keys_file"),
        requests_per_minute=settings.requests_per_minute, metrics=engine.metrics,
    )  # fmt: skip
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"],
            expose_headers=["x-request-id", "server-timing", "retry-after"],
        )  # fmt: skip
    app.add_middleware(RequestIds, metrics=engine.metrics, known=frozenset(_paths(app)))
    describe(app)
    return app


def _paths(app: FastAPI) -> list[str]:
    """Return the paths without a parameter in them."""
    return [route.path for route in app.state.routes if isinstance(route, Route) and "{" not in route.path]


def _fixed(router: APIRouter) -> list[APIRoute]:
    """Return the routes without a parameter in their paths."""
    return [route for route in router.routes if isinstance(route, APIRoute) and "{" not in route.path]


def image_limits(settings: Settings) -> ImageLimits:
    """Return the limits of a picture that the settings name."""
    formats = tuple(name.strip().upper() for name in settings.formats.split(",") if name.strip())
    if unknown := [name for name in formats if name not in ALL_FORMATS]:
        raise ConfigError(f"formats names {', '.join(unknown)}; known are {', '.join(ALL_FORMATS)}")
    return ImageLimits(pixels=settings.max_pixels, edge=settings.max_edge, formats=formats)


class RequestIds:
    """Gives every request an id, taken from x-request-id or made; every answer carries it, and the log names it.

    Pure ASGI: a middleware that wraps requests and responses would hide a client that leaves.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, known: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._known = known  # paths that metrics are counted by: others are one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        sent = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _REQUEST_ID.match(sent) else secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            took = 1e3 * (time.perf_counter() - started)
            endpoint = scope["path"] if scope["path"] in self._known else "other"
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.request_seconds.labels(endpoint).observe(took / 1e3)
            told = {"id": request_id, "method": scope["method"], "path": scope["path"], "status": status, "ms": round(took, 1)}
            trace = headers.get(b"traceparent", b"").decode("latin-1")
            if _TRACE.match(trace):
                told["trace"] = trace
            _LOG.info("request %s", " ".join(f"{name}={value!r}" for name, value in told.items()), extra={"fields": told})


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem), "registered for Problem"
    request.app.state.engine.metrics.rejected.labels(error.code).inc()
    return problem_response(request, error)


async def _on_client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the log names it


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an unknown path or a wrong method."""
    assert isinstance(error, HTTPException), "registered for HTTPException"
    path = request.url.path
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        detail = f"{request.method} was sent to {path}; it takes {allowed}"
        return problem_response(request, Problem("method", detail, headers={"Allow": allowed}))
    if error.status_code == 404:
        return problem_response(request, Problem("unknown_path", f"there is nothing at {path}; /docs lists the paths"))
    return problem_response(request, Problem("internal", f"{error.status_code} {error.detail}"))


def _methods(request: Request) -> list[str]:
    """Return the methods that a path takes; the framework names those of the first route alone (RFC 9110, 15.5.6)."""
    found: set[str] = set()
    for route in request.app.state.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def _on_bug(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("state", {}).get("request_id", "")
    _LOG.error("bug id=%s", request_id, exc_info=error)
    # This is answered outside of the middleware that names requests and puts headers on answers: both are done here.
    headers = {"x-request-id": request_id, "x-content-type-options": "nosniff"}
    detail = "a bug of the service; the log has it under the request id"
    return problem_response(request, Problem("internal", detail, headers=headers))
