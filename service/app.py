"""The application: the dialects' routes over one engine, their error responses, and the middleware around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from model import Captioner
from service.errors import ServiceError, internal_error
from service.http.dialects import DIALECTS, Dialect
from service.http.docs_page import add_docs
from service.http.openapi import add_schemas
from service.http.page import add_page
from service.http.paths import PathMiddleware, check_root_path
from service.http.proxies import ForwardedMiddleware, proxy_networks
from service.http.request_log import RequestLogMiddleware
from service.http.security import SecurityMiddleware, read_keys
from service.runtime import ClientLeft, Engine
from service.settings import Settings

_LOG = logging.getLogger(__name__)


def create_app(captioners: dict[str, Captioner], settings: Settings, dialects: Sequence[Dialect] = DIALECTS) -> FastAPI:
    """Return the application over captioners that are loaded and warm; the first one is the default.

    Of `dialects`, the first that owns a path answers it. Raises ConfigError for settings that cannot be used.
    """
    settings = settings.model_copy(update={"root_path": check_root_path(settings.root_path)})
    engine = Engine(captioners, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        watch = asyncio.create_task(engine.watch(app.state.on_failure))
        try:
            yield
        finally:
            await asyncio.get_running_loop().run_in_executor(None, engine.stop)
            watch.cancel()  # last: the model thread may hang while it finishes what was accepted

    app = FastAPI(
        title="Sightline",
        version="1",
        description="Image captions in which every word shows where in the image it came from.",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,  # FastAPI's page loads scripts from another host
        redoc_url=None,
        redirect_slashes=False,
    )
    routers = {dialect.name: dialect.routes(engine) for dialect in reversed(dialects)}  # native first: routes are tried in turn
    # FastAPI's routes are for the OpenAPI document. These plain routes come first and serve: the bodies are read by body.py, and
    # FastAPI's inspection would take a third of what a request costs without a network.
    for router in routers.values():
        posts = [route for route in _fixed(router) if route.methods == {"POST"}]
        app.router.routes.extend(Route(route.path, route.endpoint, methods=["POST"]) for route in posts)
    for name, router in routers.items():
        app.include_router(router, generate_unique_id_function=_operation_id(name))
    if settings.docs:
        add_docs(app, settings.root_path)
    if settings.page:
        add_page(app, settings.root_path)
    all_routes = [*app.routes, *(route for router in routers.values() for route in router.routes)]
    app.state.engine = engine
    app.state.on_failure = lambda: None  # the server process replaces it
    errors = _Errors(dialects, all_routes, engine)
    app.add_exception_handler(ServiceError, errors.on_service_error)
    app.add_exception_handler(ClientLeft, errors.on_client_left)
    app.add_exception_handler(HTTPException, errors.on_http_exception)
    app.add_exception_handler(Exception, errors.on_bug)
    app.add_middleware(
        SecurityMiddleware,
        keys=read_keys(settings.keys_file),
        admin_keys=read_keys(settings.admin_keys_file, "admin_keys_file"),
        requests_per_minute=settings.requests_per_minute,
        metrics=engine.metrics,
        render=errors.response,
    )
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "server-timing", "retry-after"],
        )
    paths = frozenset(route.path for route in all_routes if isinstance(route, Route) and "{" not in route.path)
    app.add_middleware(RequestLogMiddleware, metrics=engine.metrics, known_paths=paths)
    if networks := proxy_networks(settings.trusted_proxies):
        app.add_middleware(ForwardedMiddleware, networks=networks)
    patterns = [route.path for route in all_routes if isinstance(route, Route)]
    app.add_middleware(PathMiddleware, root_path=settings.root_path, own_paths=patterns)
    add_schemas(app, [schema for dialect in dialects for schema in dialect.schemas], settings.root_path)
    return app


def _operation_id(dialect: str) -> Callable[[APIRoute], str]:
    """Return the function that names a dialect's operations in the OpenAPI document: short names for generated clients."""
    return lambda route: route.name if dialect == "native" else f"{dialect}_{route.name}"


def _fixed(router: APIRouter) -> list[APIRoute]:
    """Return the routes whose paths have no parameter."""
    return [route for route in router.routes if isinstance(route, APIRoute) and "{" not in route.path]


class _Errors:
    """Exception handlers: every error becomes a ServiceError and is rendered by the dialect that owns the path."""

    def __init__(self, dialects: Sequence[Dialect], routes: Sequence[object], engine: Engine) -> None:
        self._dialects = dialects
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._engine = engine

    def response(self, request: Request, error: ServiceError) -> Response:
        """Return the response of the dialect that owns the path."""
        path = request.scope["path"]
        dialect = next((dialect for dialect in self._dialects if dialect.owns(path)), self._dialects[-1])
        return dialect.error_response(request, error)

    async def on_service_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError), "registered for ServiceError"
        self._engine.metrics.rejected.labels(error.code).inc()
        return self.response(request, error)

    async def on_client_left(self, _: Request, __: Exception) -> Response:
        return Response(status_code=499)  # for the log: the client has disconnected

    async def on_http_exception(self, request: Request, error: Exception) -> Response:
        """Errors of the framework itself: an unknown path or a wrong method."""
        assert isinstance(error, HTTPException), "registered for HTTPException"
        path = request.scope["path"][:200]
        if error.status_code == 405:
            allowed = ", ".join(self._methods(request))
            detail = f"{request.method} was sent to {path!r}, which supports {allowed}"
            return self.response(request, ServiceError("method", detail, headers={"Allow": allowed}))
        if error.status_code == 404:
            return self.response(request, ServiceError("unknown_path", f"{path!r} does not exist; /docs lists the paths"))
        return await self.on_bug(request, error)

    async def on_bug(self, request: Request, error: Exception) -> Response:
        request_id = request.scope.get("state", {}).get("request_id", "")
        _LOG.error("bug id=%s", request_id, exc_info=error)
        response = self.response(request, internal_error())
        # This response is made outside the middleware that adds these headers.
        response.headers["x-request-id"] = request_id
        response.headers["x-content-type-options"] = "nosniff"
        return response

    def _methods(self, request: Request) -> list[str]:
        """Return the methods of a path; the framework names those of the first route alone (RFC 9110, section 15.5.6)."""
        methods: set[str] = set()
        for route in self._routes:
            if route.matches(request.scope)[0] != Match.NONE:
                methods |= route.methods or set()
        return sorted(methods)
