"""POST /v1/responses: the caption of the last image of the input. Stateless: nothing is stored."""

from __future__ import annotations

import time
from typing import Annotated, Any

from annotated_types import MaxLen
from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from model import CaptionResult, ImageView, Word
from service.errors import ServiceError, option_error
from service.http.body import read_document
from service.http.dialects.completions import check_format, num_tokens, token_limit, word_logprob
from service.http.dialects.foreign import (
    Call,
    DetailedBody,
    ForeignEvents,
    Outcome,
    json_content,
    native_options,
    operation,
    parse_body,
    sampling_options,
    serve,
)
from service.http.dialects.native.json_body import sortable_id
from service.http.dialects.native.outputs import EVENTS, JSON
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.openai.content import check_function_call, last_image
from service.http.dialects.openai.errors import OpenAIError, code_of, error_json
from service.http.dialects.streaming import event
from service.runtime import Engine, Ticket

_Metadata = Annotated[dict[Annotated[str, MaxLen(64)], Annotated[str, MaxLen(512)]], MaxLen(16)]
_MAX_INSTRUCTIONS = 4000  # characters that are sent back
_LOGPROBS = "message.output_text.logprobs"  # of the member `include`


class ResponsesBody(DetailedBody):
    """A request of the responses API."""

    model: str | None = Field(None, description="a name from /v1/models")
    input: str | list[dict[str, Any]] = Field(description="a list of messages, of which the last with an image is captioned")
    instructions: str | list[Any] | None = Field(None, description="text; it has no effect")
    max_output_tokens: int | None = Field(None, ge=1, description="a positive integer")
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2; 0 or none: not sampled")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="an integer from 0 to 20; only the chosen words are known")
    include: list[str] | None = Field(None, description=f"a list of texts; {_LOGPROBS} is known")
    stream: bool | None = Field(None, description="true or false")
    previous_response_id: str | None = Field(None, description="absent: no response is stored")
    background: bool | None = Field(None, description="absent or false")
    text: dict[str, Any] | None = Field(None, description='absent, or {"format": {"type": "text"}}')
    tool_choice: Any = Field(None, description="absent, none or auto")
    metadata: _Metadata | None = Field(None, description="an object of at most 16 texts, returned as sent")


def add_responses(router: APIRouter, engine: Engine) -> None:
    """Add the route."""
    documented = operation(
        "Responses: the caption of the last image of the input (OpenAI)",
        content=json_content(ResponsesBody),
        media_types=(JSON, EVENTS),
        error=OpenAIError,
    )

    @router.post("/v1/responses", **documented)
    async def responses(request: Request) -> Response:
        async def read(request: Request, ticket: Ticket) -> Call:
            return _call(engine, parse_body(ResponsesBody, await read_document(request, engine.settings, ticket)))

        return await serve(engine, request, read, _response, _ResponseEvents)


def _call(engine: Engine, body: ResponsesBody) -> Call:
    """Return the native request. Raises ServiceError."""
    if body.previous_response_id:
        raise option_error("previous_response_id", "previous_response_id is set; this service stores no response: send the image")
    if body.background:
        raise option_error("background", "background is true; this service stores no response: leave it out")
    check_format((body.text or {}).get("format"), "text.format")
    check_function_call(body.tool_choice)
    _, captioner = engine.captioner(body.model or None)
    options = {
        "model": body.model or None,
        **sampling_options(body.temperature, body.top_p),
        **token_limit(body.max_output_tokens, captioner.config.generation.max_new_tokens),
    }
    native, has_details = native_options(body.sightline, options)
    image = last_image(body.input if isinstance(body.input, list) else [], "input")
    return Call(image=image, options=native, has_details=has_details, is_stream=bool(body.stream), body=body)


def _skeleton(body: ResponsesBody, model: str) -> dict[str, Any]:
    """Return a response before its first word."""
    return {
        "id": f"resp_{sortable_id()}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions[:_MAX_INSTRUCTIONS] if isinstance(body.instructions, str) else None,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def _response(outcome: Outcome) -> dict[str, Any]:
    body: ResponsesBody = outcome.call.body
    message_id = f"msg_{sortable_id()}"
    return _completed(body, _skeleton(body, outcome.parsed.model), message_id, outcome)


def _completed(body: ResponsesBody, skeleton: dict[str, Any], message_id: str, outcome: Outcome) -> dict[str, Any]:
    """Return the response with its message and usage."""
    is_cut = outcome.caption.finish_reason == "length"
    status = "incomplete" if is_cut else "completed"
    num_input, num_output = num_tokens(outcome.result)
    logprobs = _logprobs(body, outcome.caption.words)
    return {
        **skeleton,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": [_message(message_id, status, [_part(outcome.caption.text, logprobs)])],
        "usage": {
            "input_tokens": num_input,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": num_output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": num_input + num_output,
        },
        **outcome.details(),
    }


def _message(message_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": message_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(body: ResponsesBody, words: tuple[Word, ...]) -> list[dict[str, Any]]:
    is_requested = bool(body.top_logprobs) or _LOGPROBS in (body.include or ())
    return [word_logprob(word) for word in words] if is_requested else []


class _ResponseEvents(ForeignEvents):
    """Writes the typed events of a response, each with its number."""

    def __init__(self, call: Call, parsed: ParsedRequest, view: ImageView) -> None:
        super().__init__(call, parsed, view)
        self._body: ResponsesBody = call.body
        self._skeleton = _skeleton(self._body, parsed.model)
        self._message_id = f"msg_{sortable_id()}"
        self._number = 0
        self._position = {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def start(self) -> bytes:
        """Return the events before the first word."""
        return b"".join(
            [
                self._event("response.created", response=self._skeleton),
                self._event("response.in_progress", response=self._skeleton),
                self._event("response.output_item.added", output_index=0, item=_message(self._message_id, "in_progress", [])),
                self._event("response.content_part.added", **self._position, part=_part("", [])),
            ]
        )

    def word(self, word: Word) -> bytes:
        """Return the event of a word."""
        return self._delta(word.before + word.text, (word,))

    def end(self, result: CaptionResult) -> bytes:
        """Return the events that end the part, the message and the response."""
        caption = result.best
        outcome = self._outcome(result)
        response = _completed(self._body, self._skeleton, self._message_id, outcome)
        [message] = response["output"]
        [part] = message["content"]
        return b"".join(
            [
                self._delta(caption.after, ()) if caption.after else b"",
                self._event("response.output_text.done", **self._position, text=part["text"], logprobs=part["logprobs"]),
                self._event("response.content_part.done", **self._position, part=part),
                self._event("response.output_item.done", output_index=0, item=message),
                self._event(f"response.{response['status']}", response=response),
            ]
        )

    def error(self, error: ServiceError) -> bytes:
        """Return the event of a failed response."""
        message = error_json(error)["error"]["message"]
        failed = {**self._skeleton, "status": "failed", "error": {"code": code_of(error), "message": message}}
        return self._event("response.failed", response=failed)

    def _delta(self, text: str, words: tuple[Word, ...]) -> bytes:
        return self._event("response.output_text.delta", **self._position, delta=text, logprobs=_logprobs(self._body, words))

    def _event(self, kind: str, **values: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event(kind, {"type": kind, "sequence_number": number, **values})
