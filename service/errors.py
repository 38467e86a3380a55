"""Problems as RFC 9457 has them: one table of codes, one exception, one shape of answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What a code stands for."""

    status: int
    title: str
    explanation: str


PROBLEMS: dict[str, ProblemKind] = {
    "empty_body": ProblemKind(400, "The request has no picture", "The body, or the picture in it, has no bytes."),
    "broken_image": ProblemKind(
        400, "The picture cannot be decoded", "The bytes begin like a picture but are cut off, damaged or oversized inside."
    ),
    "broken_base64": ProblemKind(400, "The picture is no base64", "In JSON the picture is base64 text or a data: URL."),
    "broken_multipart": ProblemKind(400, "The form cannot be read", "The body is not the multipart that its header says."),
    "broken_json": ProblemKind(400, "The JSON cannot be read", "The body is not one JSON object in UTF-8."),
    "missing_key": ProblemKind(401, "A key is needed", "Send it as Authorization: Bearer, or as x-api-key."),
    "wrong_key": ProblemKind(401, "The key is not known", "Ask whoever runs the service for one."),
    "host_not_allowed": ProblemKind(403, "The URL's host is not allowed", "Only hosts of the setting url_hosts are asked."),
    "unknown_path": ProblemKind(404, "There is nothing at this path", "See /docs for the paths there are."),
    "unknown_model": ProblemKind(404, "No such model", "GET /v1/models lists the names."),
    "method": ProblemKind(405, "This path takes another method", "The header Allow names the methods."),
    "not_acceptable": ProblemKind(406, "No answer in the types accepted", "Accept names types this path cannot give."),
    "slow_body": ProblemKind(408, "The body came too slowly", "The limit is the setting body_seconds."),
    "body_too_large": ProblemKind(413, "The body is too large", "The limit is the setting max_body_bytes."),
    "too_many_pixels": ProblemKind(
        413, "The picture has too many pixels", "Judged by its header, before decoding: settings max_pixels, max_edge."
    ),
    "unsupported_media_type": ProblemKind(
        415, "The content type is not taken", "Send image/*, multipart/form-data, application/json, or no type at all."
    ),
    "unsupported_image_format": ProblemKind(
        415, "The picture's format is not taken", "Judged by the first bytes; the setting formats lists what is taken."
    ),
    "invalid_option": ProblemKind(422, "An option cannot be used", "`errors` names each option and what it can be."),
    "rate_limited": ProblemKind(429, "Too many requests of one client", "Retry-After says when; setting requests_per_minute."),
    "overloaded": ProblemKind(503, "Too much at once", "Retry-After says when there should be room, by the measured rate."),
    "not_ready": ProblemKind(503, "The service cannot answer yet", "It loads, or its model has failed and it restarts."),
    "draining": ProblemKind(503, "The service is stopping", "Readiness falls first, then the listener closes; others answer."),
    "deadline_exceeded": ProblemKind(504, "No answer in time", "The limit is the setting deadline_seconds; the work is dropped."),
    "internal": ProblemKind(500, "Something went wrong here", "A bug of the service, never an input's fault."),
}


@dataclass(slots=True)
class Problem(Exception):
    """A request that cannot be answered as asked. `errors` names options: {"parameter" or "pointer", "detail"}."""

    code: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


def option_problem(name: str, detail: str, *, json: bool) -> Problem:
    """Return the problem of one option: a pointer into a JSON body, else the name of a parameter."""
    return Problem("invalid_option", detail, [named_option(name, detail, json=json)])


def named_option(name: str, detail: str, *, json: bool) -> dict[str, str]:
    """Return one entry of `errors`."""
    escaped = name.replace("~", "~0").replace("/", "~1")  # RFC 6901
    return {"pointer": f"/{escaped}", "detail": detail} if json else {"parameter": name, "detail": detail}


def problem_json(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return a problem as RFC 9457 has it."""
    kind = PROBLEMS[problem.code]
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        body["errors"] = problem.errors
    return body


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Return the answer to a request that met a problem."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    status = PROBLEMS[problem.code].status
    return JSONResponse(problem_json(problem, request_id), status, headers=problem.headers, media_type=MEDIA_TYPE)
