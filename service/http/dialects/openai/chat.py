"""POST /v1/chat/completions: the caption of the last image of a conversation."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from model import Caption, CaptionResult, ImageView, Word
from service.errors import ServiceError
from service.http.body import read_document
from service.http.dialects.completions import (
    STOP_HELP,
    StopSequences,
    StopTexts,
    check_format,
    finish_reason,
    num_tokens,
    token_limit,
    word_logprob,
)
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
from service.http.dialects.openai.errors import OpenAIError, error_json
from service.http.dialects.streaming import data_event
from service.runtime import Engine, Ticket


class ChatBody(DetailedBody):
    """A request of chat completions."""

    model: str | None = Field(None, description="a name from /v1/models")
    messages: list[dict[str, Any]] = Field(description="a list of messages, of which the last with an image is captioned")
    n: int | None = Field(None, ge=1, le=8, description="an integer from 1 to 8, captions returned")
    max_tokens: int | None = Field(None, ge=1, description="a positive integer")
    max_completion_tokens: int | None = Field(None, ge=1, description="a positive integer")
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2; 0 or none: not sampled")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="a 64-bit integer")
    stop: StopTexts = Field(None, description=STOP_HELP)
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="an integer from 0 to 20; only the chosen words are known")
    stream: bool | None = Field(None, description="true or false")
    stream_options: dict[str, Any] | None = Field(None, description="an object; include_usage is used")
    response_format: dict[str, Any] | None = Field(None, description='absent, or {"type": "text"}')
    tool_choice: Any = Field(None, description="absent, none or auto")


def add_chat(router: APIRouter, engine: Engine) -> None:
    """Add the route."""
    documented = operation(
        "Chat completions: the caption of the last image of a conversation (OpenAI)",
        content=json_content(ChatBody),
        media_types=(JSON, EVENTS),
        error=OpenAIError,
    )

    @router.post("/v1/chat/completions", **documented)
    async def chat_completions(request: Request) -> Response:
        async def read(request: Request, ticket: Ticket) -> Call:
            return _call(engine, parse_body(ChatBody, await read_document(request, engine.settings, ticket)))

        return await serve(engine, request, read, _completion, _ChatEvents)


def _call(engine: Engine, body: ChatBody) -> Call:
    """Return the native request. Raises ServiceError."""
    check_format(body.response_format, "response_format")
    check_function_call(body.tool_choice)
    _, captioner = engine.captioner(body.model or None)
    defaults = captioner.config.generation
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    count = body.n or 1
    options: dict[str, Any] = {
        "model": body.model or None,
        **sampling_options(body.temperature, body.top_p, seed=body.seed),
        **token_limit(limit, defaults.max_new_tokens),
        "num_return_sequences": count,
    }
    if "strategy" not in options and count > 1:
        options |= {"strategy": "beam", "num_beams": max(count, defaults.num_beams)}
    native, has_details = native_options(body.sightline, options)
    image = last_image(body.messages, "messages")
    return Call(image=image, options=native, has_details=has_details, is_stream=bool(body.stream), body=body)


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{sortable_id()}", "object": kind, "created": int(time.time()), "model": model}


def _completion(outcome: Outcome) -> dict[str, Any]:
    choices = [_choice(outcome.call.body, index, caption) for index, caption in enumerate(outcome.captions)]
    head = _head(outcome.parsed.model, "chat.completion")
    return {**head, "choices": choices, "usage": _usage(outcome.result), "system_fingerprint": None, **outcome.details()}


def _choice(body: ChatBody, index: int, caption: Caption) -> dict[str, Any]:
    stop = StopSequences(body.stop)
    text, words = stop.cut(caption)
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": _logprobs(body, words),
        "finish_reason": finish_reason(caption, stop),
    }


def _logprobs(body: ChatBody, words: list[Word]) -> dict[str, Any] | None:
    return {"content": [word_logprob(word) for word in words], "refusal": None} if body.logprobs else None


def _usage(result: CaptionResult) -> dict[str, Any]:
    num_prompt, num_completion = num_tokens(result)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_completion,
        "total_tokens": num_prompt + num_completion,
        "prompt_tokens_details": {"image_tokens": num_prompt, "cached_tokens": 0},
    }


class _ChatEvents(ForeignEvents):
    """Writes chunks; the words of the first caption as they become final, other captions as one chunk each."""

    def __init__(self, call: Call, parsed: ParsedRequest, view: ImageView) -> None:
        super().__init__(call, parsed, view)
        self._body: ChatBody = call.body
        self._head = _head(parsed.model, "chat.completion.chunk")
        self._stop = StopSequences(self._body.stop)
        self._usage_requested = bool((self._body.stream_options or {}).get("include_usage"))

    def start(self) -> bytes:
        """Return the chunk with the role."""
        return self._chunk(0, {"role": "assistant", "content": "", "refusal": None})

    def word(self, word: Word) -> bytes:
        """Return the chunk of a word."""
        text, words = self._stop.feed_word(word)
        return self._chunk(0, {"content": text}, words) if text else b""

    def end(self, result: CaptionResult) -> bytes:
        """Return the rest of the first caption, the others, the usage if it was requested, and the end mark."""
        outcome = self._outcome(result)
        first, *others = outcome.captions
        rest, words = self._stop.finish(first)
        chunks = [self._chunk(0, {"content": rest}, words)] if rest else []
        reason = finish_reason(first, self._stop)
        chunks.append(self._chunk(0, {}, reason=reason, **outcome.details()))
        for index, caption in enumerate(others, 1):
            choice = _choice(self._body, index, caption)
            message = choice.pop("message")
            chunks.append(self._event({"choices": [{**choice, "delta": message}]}))
        if self._usage_requested:
            chunks.append(self._event({"choices": [], "usage": _usage(result)}))
        return b"".join([*chunks, b"data: [DONE]\n\n"])

    def error(self, error: ServiceError) -> bytes:
        """Return an error, as OpenAI sends it inside of a stream."""
        return data_event(error_json(error))

    def _chunk(
        self, index: int, delta: dict[str, Any], words: list[Word] | None = None, reason: str | None = None, **extra: Any
    ) -> bytes:
        logprobs = _logprobs(self._body, words or [])
        return self._event(
            {"choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}], **extra}
        )

    def _event(self, values: dict[str, Any]) -> bytes:
        usage = {"usage": None} if self._usage_requested else {}  # as OpenAI does, in all but the last
        return data_event({**self._head, **usage, **values})
