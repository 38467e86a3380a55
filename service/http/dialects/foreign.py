"""What the dialects of other services share: their requests become native ones, and native results their bodies.

A request may have the member `sightline`, `true` or an object of options of /v1/captions; the response then has the native body,
with words, maps and boxes, under the same name.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from model import Caption, CaptionResult, GenerationOptions, ImageView, fields_of
from service.errors import ERRORS, OptionError, ServiceError, option_error
from service.http.body import RequestBody
from service.http.dialects.flow import caption_image, disconnected, gather, prepare_image
from service.http.dialects.native.openapi import CONNECTION_ERRORS, IMAGE_ERRORS
from service.http.dialects.native.outputs import EVENTS, body_json, check_map_values
from service.http.dialects.native.parse import ParsedRequest, parse_captions
from service.http.dialects.native.problems import printable
from service.http.dialects.streaming import STILL_WORKING, EventWriter, streaming_response
from service.http.image_text import decode_image_text, image_of_part
from service.http.multipart import read_parts
from service.http.openapi import SCHEMA_REF
from service.http.responses import hold_until_sent, json_response, timing_header
from service.http.security import client_address
from service.runtime import Engine, Ticket

# What those services answer 400.
_BAD_REQUESTS = {"host_not_allowed", "too_many_pixels", "unsupported_image_format", "unsupported_media_type", "invalid_option"}
_DECODING = frozenset({"language", *(info.name for info in fields_of(GenerationOptions))})
_MAX_DETAIL = 4000  # characters
_MAX_PARTS = 40  # of a form
_MAX_ENTRIES, _MAX_MEMBERS = 1000, 64  # of a list and an object in a request: messages, options
_MIN_TEMPERATURE = 0.05  # below it, sampling is the most likely caption


class ForeignBody(BaseModel):
    """A request of another API. Unknown members are ignored, as those services do; null is the same as absent."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class DetailedBody(ForeignBody):
    """A request whose response can have the native body, too."""

    sightline: bool | dict[str, Any] | None = Field(None, description="true or an object of options of /v1/captions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of another API in the native API's terms."""

    image: bytes | str  # bytes or URL
    options: dict[str, Any]  # of /v1/captions, as JSON
    has_details: bool = False  # whether the response has the native body under `sightline`
    is_stream: bool = False
    body: Any = None  # the parsed request, for the dialect that renders the response
    whole: dict[str, Any] | None = None  # options of another caption, of the whole image, if `options` ask for parts of it


@dataclass(frozen=True, slots=True)
class Outcome:
    """The captions of a call."""

    call: Call
    parsed: ParsedRequest
    view: ImageView
    result: CaptionResult
    whole: CaptionResult | None = None  # of the call's `whole`

    @property
    def caption(self) -> Caption:
        """The best caption."""
        return self.result.best

    @property
    def captions(self) -> tuple[Caption, ...]:
        """All captions, an empty one if there is none."""
        return self.result.captions or (self.caption,)

    @property
    def confidence(self) -> float:
        """The confidence of the best caption."""
        return confidence_of(self.caption)

    def details(self) -> dict[str, Any]:
        """Return the member `sightline` if it was requested, as a dict to merge into a body. Raises ServiceError (422)."""
        if not self.call.has_details:
            return {}
        check_map_values(self.parsed, self.result)
        return {"sightline": body_json(self.parsed, self.view, self.result)}


class ForeignEvents:
    """Base of the dialects' event writers, of server-sent events unless they say otherwise (EventWriter)."""

    media_type = EVENTS
    idle = STILL_WORKING

    def __init__(self, call: Call, parsed: ParsedRequest, view: ImageView) -> None:
        self._call = call
        self._parsed = parsed
        self._view = view

    def start(self) -> bytes:
        """Return no bytes: the stream begins with the first word."""
        return b""

    def _outcome(self, result: CaptionResult) -> Outcome:
        return Outcome(self._call, self._parsed, self._view, result)


class ForeignDialect:
    """Base of the dialects: owns what is at or below its paths."""

    name: str
    schemas: Sequence[type[BaseModel]] = ()
    paths: ClassVar[tuple[str, ...]]

    def owns(self, path: str) -> bool:
        """Return whether a path is one of its paths or below one."""
        return any(path == own or path.startswith(f"{own}/") for own in self.paths)


def confidence_of(caption: Caption) -> float:
    """Return the calibrated confidence of a caption, or the geometric mean of its tokens' probabilities."""
    if caption.confidence is not None:
        return caption.confidence
    return math.exp(caption.log_probability / max(1, caption.num_tokens))


def error_text(error: ServiceError) -> str:
    """Return what an error says, as text that can be encoded."""
    return printable(error.detail, _MAX_DETAIL)


def status_of(code: str) -> int:
    """Return the status of an error where this service's own is more specific than theirs."""
    return 400 if code in _BAD_REQUESTS else ERRORS[code].status


async def serve(
    engine: Engine,
    request: Request,
    read: Callable[[Request, Ticket], Awaitable[Call]],
    render: Callable[[Outcome], dict[str, Any] | list[Any] | Response],
    events: Callable[[Call, ParsedRequest, ImageView], EventWriter] | None = None,
) -> Response:
    """Answer a request with one image: admitted, read, captioned before its deadline, rendered or streamed.

    `render` returns the JSON of the body, or a response of another kind. Raises ServiceError, ClientLeft.
    """
    with ExitStack() as stack:
        ticket = stack.enter_context(engine.admit(client_address(request.scope)))
        call = await read(request, ticket)
        ticket.take("images", 1 if call.whole is None else 2)
        parsed = parse_captions(engine, request, RequestBody([call.image], call.options, True))
        options = [] if call.whole is None else [parse_captions(engine, request, RequestBody([call.image], call.whole, True))]
        deadline = engine.deadline()
        if call.is_stream and parsed.regions:
            raise option_error("regions", "regions are captioned together, not word by word; leave stream out")
        preparing = prepare_image(engine, parsed, ticket)
        if call.is_stream and events is not None:
            prepared = await engine.within(deadline, disconnected(request), preparing)
            writer = events(call, parsed, prepared.view)
            return hold_until_sent(streaming_response(engine, parsed, prepared, deadline, writer), stack)

        async def work() -> Response:
            prepared = await preparing
            results = await gather([caption_image(engine, one, prepared) for one in (parsed, *options)])
            outcome = Outcome(call, parsed, prepared.view, *results)
            num_values = check_map_values(parsed, outcome.result)
            rendered = await engine.in_writer(lambda: render(outcome)) if num_values else render(outcome)
            if isinstance(rendered, Response):
                return rendered
            headers = timing_header(outcome.result.timing)
            return await json_response(engine, request, num_values, lambda: rendered, headers)

        return hold_until_sent(await engine.within(deadline, disconnected(request), work()), stack)


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse_body(kind: type[BodyT], document: dict[str, Any]) -> BodyT:
    """Check a JSON object against a schema whose descriptions say what is allowed. Raises ServiceError (422).

    Sizes first: every wrong entry of a list would become an error of its own.
    """
    for name, value in document.items():
        limit = _MAX_ENTRIES if isinstance(value, list) else _MAX_MEMBERS
        if isinstance(value, list | dict) and name in kind.model_fields and len(value) > limit:
            raise option_error(name, f"{name} has {len(value)} entries; at most {limit} are accepted")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        errors = list({str(entry["loc"][0]): _member_error(kind, entry) for entry in reversed(error.errors())}.values())
        raise ServiceError("invalid_option", "; ".join(entry.detail for entry in errors), errors) from error


def native_options(sightline: bool | dict[str, Any] | None, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return options of /v1/captions with those of the extension, and whether the extension was requested.

    Without it, maps and reliance are not computed.
    """
    if not sightline and sightline != {}:
        return {"maps": "none", "reliance": False} | options, False
    return options | (sightline if isinstance(sightline, dict) else {}), True


def decoding_options(values: dict[str, Any]) -> dict[str, Any]:
    """Return the members that are decoding options or the language, under the names of /v1/captions; others are ignored."""
    return {name: value for name, value in values.items() if name in _DECODING and value is not None}


def sampling_options(temperature: float | None, top_p: float | None, **others: float | int | None) -> dict[str, Any]:
    """Return the options of a request that may sample: it does if it sets a temperature above 0, or a top_p below 1 alone."""
    is_sampled = temperature >= _MIN_TEMPERATURE if temperature is not None else (top_p or 1.0) < 1.0
    if not is_sampled:
        return {}
    chosen = {"temperature": temperature, "top_p": top_p, **others}
    return {"strategy": "sample"} | {name: value for name, value in chosen.items() if value is not None}


def image_or_url(text: object, member: str) -> bytes | str:
    """Return an image's bytes from base64 or a data: URL, or the URL that it can be fetched from. Raises ServiceError."""
    if not isinstance(text, str) or not text.strip():
        raise option_error(member, f"{member} is {reprlib.repr(text)}; send base64 or a data: URL")
    is_url = text.lstrip()[:8].lower().startswith(("http://", "https://"))
    return text.strip() if is_url else decode_image_text(text)


def form_image(request: Request, data: bytes, name: str = "") -> bytes:
    """Return the image of a multipart form: its part of that name, or its first one. Raises ServiceError."""
    for number, part in enumerate(read_parts(request.headers.get("content-type", ""), data)):
        if number >= _MAX_PARTS:
            raise ServiceError("broken_multipart", f"the form has more than {_MAX_PARTS} parts; send the image alone")
        if part.name == name or not name:
            if not part.data:
                raise ServiceError("empty_body", f"the form's part {part.name[:80]!r} has 0 bytes; send an image")
            return image_of_part(part.data)
    raise option_error(name or "image", f"the form has no part {name or 'image'!r}; send the image under that name")


def operation(
    summary: str,
    *,
    content: dict[str, Any],
    media_types: Sequence[str] = ("application/json",),
    error: type[BaseModel],
    error_type: str = "application/json",
    status: Callable[[str], int] = status_of,
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return FastAPI's arguments for a route with one image: bodies, and every error with its status."""
    ok = {"description": summary, "content": {name: {"schema": {}} for name in media_types}}
    body = {"requestBody": {"required": True, "content": content}, "parameters": list(parameters)}
    return {"summary": summary, "responses": {200: ok, **_errors(error, status, error_type)}, "openapi_extra": body}


def get_operation(summary: str, error: type[BaseModel], *codes: str, error_type: str = "application/json") -> dict[str, Any]:
    """Return FastAPI's arguments for a route without a body, whose own errors are `codes`."""
    own = (*codes, "missing_key", "wrong_key", "rate_limited", "method", "internal")
    ok = {"description": summary, "content": {"application/json": {"schema": {}}}}
    return {"summary": summary, "responses": {200: ok, **_errors(error, lambda code: ERRORS[code].status, error_type, own)}}


def json_content(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the content of a JSON body; its schema must be among the dialect's `schemas`."""
    return {"application/json": {"schema": {"$ref": SCHEMA_REF.format(model=kind.__name__)}}}


def _errors(
    error: type[BaseModel], status: Callable[[str], int], media_type: str, codes: Sequence[str] = IMAGE_ERRORS
) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(status(code), []).append(code)
    for number, reason in CONNECTION_ERRORS.items():
        by_status.setdefault(number, []).append(reason)
    schema = {"$ref": SCHEMA_REF.format(model=error.__name__)}
    return {
        number: {"description": " · ".join(names), "content": {media_type: {"schema": schema}}}
        for number, names in by_status.items()
    }


def _member_error(kind: type[BaseModel], entry: Any) -> OptionError:
    """Return the error of a member, by the description of the innermost declared one that contains it."""
    path, description = [str(entry["loc"][0])], ""
    model: type[BaseModel] | None = kind
    for part in entry["loc"]:
        if model is None or part not in model.model_fields:
            break
        path = [*path, str(part)] if description else [str(part)]
        field = model.model_fields[str(part)]
        description = field.description or ""
        arms = [field.annotation, *get_args(field.annotation)]
        model = next((arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)), None)
    received = "missing" if entry["type"] == "missing" else reprlib.repr(entry["input"])[:80]
    return OptionError(path[0][:80], f"{'.'.join(path)[:200]} is {received}; it must be {description}")
