"""POST /api/generate and /api/chat: captions as one JSON object or one per line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import Captioner, CaptionResult, ImageView, Word
from service.errors import ServiceError, option_error
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
    ForeignBody,
    ForeignEvents,
    Outcome,
    image_or_url,
    native_options,
    parse_body,
    sampling_options,
    serve,
)
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.ollama.models import error_json, model_name, timestamp
from service.http.json_encoding import encode_json
from service.runtime import Engine, Ticket

NDJSON = "application/x-ndjson"


class OllamaOptions(ForeignBody):
    """The options of a model that have an effect; all others are ignored."""

    num_predict: int | None = Field(None, description="an integer; positive: tokens at most")
    temperature: float | None = Field(None, ge=0, le=5, description="a number from 0 to 5; 0 or none: not sampled")
    top_k: int | None = Field(None, ge=0, le=1000, description="an integer from 0 to 1000")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    min_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="a 64-bit integer")
    stop: StopTexts = Field(None, description=STOP_HELP)


class _OllamaBody(DetailedBody):
    model: str | None = Field(None, description="a name from /api/tags")
    stream: bool | None = Field(None, description="true (the default) or false")
    options: OllamaOptions | None = Field(None, description="an object of options")
    format: Any = Field(None, description="absent or empty: captions are text")
    logprobs: bool | None = Field(None, description="true or false")

    @property
    def chosen(self) -> OllamaOptions:
        return self.options or OllamaOptions.model_validate({})


class GenerateBody(_OllamaBody):
    """A request of /api/generate."""

    prompt: str | None = Field(None, description="text; it has no effect")
    images: list[str] | None = Field(None, description="a list with one image as base64")


class OllamaChatBody(_OllamaBody):
    """A request of /api/chat."""

    messages: list[dict[str, Any]] | None = Field(None, description="a list of messages; the last with an image is captioned")


async def answer(engine: Engine, request: Request, kind: type[GenerateBody] | type[OllamaChatBody]) -> Response:
    """Answer a request; one without text and image loads a model, which is loaded already."""
    loaded: list[Response] = []

    async def read(request: Request, ticket: Ticket) -> Call:
        body = parse_body(kind, await read_document(request, engine.settings, ticket))
        name, captioner = engine.captioner(model_name(body.model, engine.captioners))
        if not (body.messages if isinstance(body, OllamaChatBody) else body.prompt or body.images):
            loaded.append(JSONResponse({**_head(name), **_text(body, ""), "done": True, "done_reason": "load"}))
            raise _Loaded
        return _call(name, captioner, body)

    try:
        return await serve(engine, request, read, _response, _OllamaEvents)
    except _Loaded:
        return loaded[0]


class _Loaded(Exception):
    """A request for nothing but the model."""


def _call(name: str, captioner: Captioner, body: GenerateBody | OllamaChatBody) -> Call:
    """Return the native request. Raises ServiceError."""
    check_format(body.format, "format")
    chosen = body.chosen
    limit = chosen.num_predict if chosen.num_predict is not None and chosen.num_predict > 0 else None
    options = {
        "model": name,
        **sampling_options(chosen.temperature, chosen.top_p, top_k=chosen.top_k, min_p=chosen.min_p, seed=chosen.seed),
        **token_limit(limit, captioner.config.generation.max_new_tokens),
    }
    native, has_details = native_options(body.sightline, options)
    image = image_or_url(_image(body), "images")
    return Call(image=image, options=native, has_details=has_details, is_stream=body.stream is not False, body=body)


def _image(body: GenerateBody | OllamaChatBody) -> Any:
    """Return the one image, of the last message that has any. Raises ServiceError."""
    images: Any = []
    if isinstance(body, GenerateBody):
        images = body.images or []
    else:
        for message in body.messages or []:
            images = message.get("images") or images
    if not isinstance(images, list) or len(images) != 1:
        received = f"{len(images)} images" if isinstance(images, list) else "no list"
        detail = f"images is {received}; this model captions images and answers no text: send one image as base64"
        raise option_error("images", detail)
    return images[0]


def _head(name: str) -> dict[str, Any]:
    return {"model": name, "created_at": timestamp(datetime.now(UTC))}


def _text(body: object, text: str) -> dict[str, Any]:
    """Return text in the member that the path has for it."""
    return {"message": {"role": "assistant", "content": text}} if isinstance(body, OllamaChatBody) else {"response": text}


def _response(outcome: Outcome) -> dict[str, Any]:
    body = outcome.call.body
    stop = StopSequences(body.chosen.stop)
    text, words = stop.cut(outcome.caption)
    return {**_head(outcome.parsed.model), **_text(body, text), **_logprobs(body, words), **_final(outcome, stop)}


def _final(outcome: Outcome, stop: StopSequences) -> dict[str, Any]:
    """Return the members of a complete response: durations are integer nanoseconds."""
    timing = outcome.result.timing
    num_prompt, num_generated = num_tokens(outcome.result)
    return {
        "done": True,
        "done_reason": finish_reason(outcome.caption, stop),
        "total_duration": _nanoseconds(sum(timing.as_dict().values())),
        "load_duration": 0,
        "prompt_eval_count": num_prompt,
        "prompt_eval_duration": _nanoseconds(timing.encode_ms),
        "eval_count": num_generated,
        "eval_duration": _nanoseconds(timing.decode_ms + timing.maps_ms),
        **outcome.details(),
    }


def _logprobs(body: Any, words: Sequence[Word]) -> dict[str, Any]:
    return {"logprobs": [word_logprob(word) for word in words]} if body.logprobs else {}


class _OllamaEvents(ForeignEvents):
    """Writes one JSON object per line."""

    media_type = NDJSON
    idle = b""

    def __init__(self, call: Call, parsed: ParsedRequest, view: ImageView) -> None:
        super().__init__(call, parsed, view)
        self._stop = StopSequences(call.body.chosen.stop)

    def word(self, word: Word) -> bytes:
        """Return the line of a word."""
        text, words = self._stop.feed_word(word)
        body = self._call.body
        return self._line({**_text(body, text), **_logprobs(body, words), "done": False}) if text else b""

    def end(self, result: CaptionResult) -> bytes:
        """Return the rest of the text, and the last line, which has figures and no text: clients skip text in it."""
        outcome = self._outcome(result)
        body = self._call.body
        rest, words = self._stop.finish(outcome.caption)
        line = self._line({**_text(body, rest), **_logprobs(body, words), "done": False}) if rest else b""
        return line + self._line({**_text(body, ""), **_final(outcome, self._stop)})

    def error(self, error: ServiceError) -> bytes:
        """Return the line of an error."""
        return json.dumps(error_json(error)).encode() + b"\n"

    def _line(self, values: dict[str, Any]) -> bytes:
        return encode_json({**_head(self._parsed.model), **values}) + b"\n"


def _nanoseconds(milliseconds: float) -> int:
    return round(1e6 * milliseconds)
