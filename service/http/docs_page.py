"""The page /docs: Swagger UI over the OpenAPI document, from files of this machine, so that it works without other hosts.

The files are those of the package fastapi-swagger. The page has no script of its own inside: it is allowed none.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from service.http.static_files import file_route

PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
_FILES = {  # by the last part of their paths
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{folder}/swagger-ui.css">
<link rel="icon" href="{folder}/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{folder}/swagger-ui-bundle.js"></script>
<script src="{folder}/start.js"></script>
</body>
</html>
"""


def is_docs_path(path: str) -> bool:
    """Return whether a path is the page or one of its files."""
    return path == "/docs" or path.startswith("/docs/")


def add_docs(app: FastAPI, root_path: str) -> None:
    """Add the page and its files to an application that is served under `root_path`."""
    page = _PAGE.format(title=html.escape(app.title), folder=html.escape(f"{root_path}/docs"))
    options = {"url": f"{root_path}{app.openapi_url}", "dom_id": "#swagger-ui", "deepLinking": True, "validatorUrl": None}
    start = f"SwaggerUIBundle({json.dumps(options)})\n"

    async def docs(_: Request) -> Response:
        return HTMLResponse(page)

    async def start_script(_: Request) -> Response:
        return Response(start, media_type="text/javascript")

    app.router.routes += [Route("/docs", docs), Route("/docs/start.js", start_script)]
    folder = Path(str(files("fastapi_swagger").joinpath("resources")))
    app.router.routes += [file_route(f"/docs/{name}", folder / name, media_type) for name, media_type in _FILES.items()]
