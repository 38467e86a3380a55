"""The page at /, from the files of service/page: no build step, no other hosts, no script inside the HTML."""

from __future__ import annotations

import html
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from service.http.static_files import file_route

_FOLDER = Path(__file__).parent.parent / "page"
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".webp": "image/webp"}
_BASE = '<base href="/">'  # of index.html: replaced where a proxy serves the page under a path
_DOCS_LINK = '  <a class="api" href="docs">API</a>\n'
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; media-src 'self' blob:; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
# Browsers send the ETag of the copy that they have each time, so that an upgrade takes effect at once.
PAGE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]


def is_page_request(method: str, path: str) -> bool:
    """Return whether a request is for the page or one of its files, which need no key."""
    return method in ("GET", "HEAD") and (path == "/" or path.startswith("/page/"))


def add_page(app: FastAPI, root_path: str) -> None:
    """Add the page and its files to an application that is served under `root_path`; it links to /docs if that is served."""
    text = (_FOLDER / "index.html").read_text(encoding="utf-8")
    if app.openapi_url is None:
        text = text.replace(_DOCS_LINK, "")
    page = text.replace(_BASE, f'<base href="{html.escape(root_path)}/">')

    async def index(_: Request) -> Response:
        return HTMLResponse(page)

    app.router.routes.append(Route("/", index))
    files = [path for path in sorted(_FOLDER.rglob("*")) if path.is_file() and path.name != "index.html"]
    app.router.routes += [
        file_route(f"/page/{path.relative_to(_FOLDER).as_posix()}", path, _MEDIA_TYPES[path.suffix]) for path in files
    ]
