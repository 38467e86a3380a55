"""Paths of requests as the routes have them: without the path that a proxy serves under, and without a slash at the end.

A redirect would have to name a host and a scheme, which a service after a TLS proxy does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
    """Removes `root_path`, where the proxy has not, and one slash at the end; the first of all middleware."""

    def __init__(self, app: ASGIApp, *, root_path: str, own_paths: Iterable[str]) -> None:
        self._app = app
        self._root_path = root_path
        # Under a path such as /v1 the two could not be distinguished: there the proxy has to remove it.
        is_removable = root_path and not any(path.startswith(f"{root_path}/") for path in own_paths)
        self._removed = f"{root_path}/" if is_removable else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if self._removed and f"{path}/".startswith(self._removed):
                path = path[len(self._root_path) :] or "/"
            if len(path) > 1 and path.endswith("/"):
                path = path[:-1]
            # In place: the handler of bugs is outside of all middleware and reads the same scope.
            scope.update(path=path, raw_path=path.encode(), root_path="")
            scope.setdefault("state", {})["root_path"] = self._root_path
        await self._app(scope, receive, send)
