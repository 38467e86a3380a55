"""Files of the project's own pages, in memory: small, without ranges, and sent again only if they have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import NotModifiedResponse


def file_route(url: str, path: Path, media_type: str) -> Route:
    """Return the route of a file, which is read now. Raises OSError."""
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def file(request: Request) -> Response:
        response = Response(content, media_type=media_type, headers={"etag": etag})
        return NotModifiedResponse(response.headers) if request.headers.get("if-none-match") == etag else response

    return Route(url, file)
