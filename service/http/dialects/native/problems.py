"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from service.errors import ERRORS, OptionError, ServiceError

MEDIA_TYPE = "application/problem+json"
_MAX_NAME, _MAX_DETAIL = 80, 4000  # characters


def problem_json(error: ServiceError, request_id: str, *, is_json: bool, root_path: str = "") -> dict[str, Any]:
    """Return an error as RFC 9457 has it.

    `is_json` says whether the request's options are in a JSON body; `root_path` is the path that the service is under.
    """
    kind = ERRORS[error.code]
    body: dict[str, Any] = {
        "type": f"{root_path}/problems/{error.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": printable(error.detail, _MAX_DETAIL),
        "code": error.code,
        "request_id": request_id,
    }
    if error.options:
        body["errors"] = [_option_json(option, is_json) for option in error.options]
    return body


def problem_response(request: Request, error: ServiceError) -> JSONResponse:
    """Return the response to a request that failed."""
    state = request.scope.get("state", {})
    root_path = state.get("root_path", "")
    body = problem_json(error, state.get("request_id", ""), is_json=_is_json(request), root_path=root_path)
    return JSONResponse(body, error.status, headers=error.headers, media_type=MEDIA_TYPE)


def _is_json(request: Request) -> bool:
    """Return whether the options of a request are in a JSON body: as it was parsed, else by its media type."""
    state = request.scope.get("state", {})
    return bool(state.get("options_are_json", request.headers.get("content-type", "").startswith("application/json")))


def _option_json(option: OptionError, is_json: bool) -> dict[str, str]:
    name, detail = printable(option.name, _MAX_NAME), printable(option.detail, _MAX_DETAIL)
    if option.in_query or not is_json:
        return {"parameter": name, "detail": detail}
    escaped = [part.replace("~", "~0").replace("/", "~1") for part in (*option.within, name)]  # RFC 6901
    return {"pointer": "/" + "/".join(escaped), "detail": detail}


def printable(text: str, limit: int) -> str:
    """Return text that can be encoded, and is not as long as a client likes."""
    shortened = text if len(text) <= limit else text[:limit] + "…"
    return shortened.encode("utf-8", "backslashreplace").decode()
