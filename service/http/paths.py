"""Paths of requests as the routes have them: without the path that a proxy serves under, and without a slash at the end.

A redirect would have to name a host and a scheme, which a service after a TLS proxy does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from model import ConfigError

_ROOT_PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)


def check_root_path(text: str) -> str:
    """Return the setting root_path with a slash before it and none after it, "" for none. Raises ConfigError."""
    path = "/" + text.strip("/") if text.strip("/") else ""
    if not _ROOT_PATH.fullmatch(path):
        raise ConfigError(f"root_path is {text!r}; it must be a path such as /captioner, without host and query")
    return path


class PathMiddleware:
    """Removes `root_path`, where the proxy has not, and one slash at the end; the first of all middleware.

    A path that is one of the service's own stays as it is: under /api, /api/generate is Ollama's, /api/v1/captions /v1/captions.
    """

    def __init__(self, app: ASGIApp, *, root_path: str, own_paths: Iterable[str]) -> None:
        """`own_paths` are those of the routes, with their parameters."""
        self._app = app
        self._root_path = root_path
        own = [path for path in own_paths if root_path and path.startswith(f"{root_path}/")]
        self._own_patterns = [compile_path(path)[0] for path in own]

    def _is_removable(self, path: str) -> bool:
        if not self._root_path or not f"{path}/".startswith(f"{self._root_path}/"):
            return False
        return not any(pattern.match(path.removesuffix("/")) for pattern in self._own_patterns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if self._is_removable(path):
                path = path[len(self._root_path) :] or "/"
            if len(path) > 1 and path.endswith("/"):
                path = path[:-1]
            # In place: the handler of bugs is outside of all middleware and reads the same scope.
            scope.update(path=path, raw_path=path.encode(), root_path="")
            scope.setdefault("state", {})["root_path"] = self._root_path
        await self._app(scope, receive, send)
