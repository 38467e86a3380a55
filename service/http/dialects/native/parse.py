"""What a request of the native API says, checked and resolved: the engine's terms from here on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from starlette.requests import Request

from model import Box, Captioner, CaptionRequest, ConfigError, GenerationOptions, ImageView, dense_tasks
from service.errors import ServiceError, option_error
from service.http.body import RequestBody
from service.http.dialects.native.schemas import (
    MAX_CAPTION_WORDS,
    CaptionOptions,
    ExplanationOptions,
    MapOptions,
    RegionOptions,
    generation_options,
    parse_options,
)
from service.runtime import Engine

_SLOW_MAPS = frozenset({"occlusion"})


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request for captions, or for the explanation of `text`."""

    id: str
    images: list[bytes | str | ServiceError]  # bytes, URL, or the error with one image of a batch
    model: str
    captioner: Captioner
    language: str
    options: MapOptions
    generation: GenerationOptions | None  # None: an explanation
    text: str
    is_json: bool  # whether the options are in a JSON body
    has_line_breaks: bool  # see RequestBody
    regions: tuple[Box, ...] = ()  # captioned instead of the whole image

    @property
    def crops(self) -> tuple[Box, ...]:
        """The regions that are captioned by a crop around them: the checkpoint has no task for a part of an image."""
        return () if any(task.input == "region" for task in self.captioner.config.tasks) else self.regions

    def caption_request(self, view: ImageView, *, text_only: bool = False, region: Box | None = None) -> CaptionRequest:
        """Return the request of one image, or of a region of it, for the model; a response of text alone needs no maps."""
        return CaptionRequest(
            view=view,
            options=self.generation,
            texts=(self.text,) if self.generation is None else (),
            maps="none" if text_only else self.options.maps,
            reliance=self.options.reliance and not text_only,
            language=self.language,
            region=region,
        )


def parse_captions(engine: Engine, request: Request, body: RequestBody) -> ParsedRequest:
    """Parse a request for captions. Raises ServiceError."""
    request.scope["state"]["options_are_json"] = body.is_json
    options = parse_options(CaptionOptions, body.options, is_json=body.is_json)
    model, captioner = engine.captioner(options.model)
    generation = generation_options(options, captioner.config.generation)
    _check_maps(engine, options)
    if options.dense:
        generation = _dense(options, model, captioner, generation)
    parsed = _parsed(request, body, model, captioner, options, generation, "")
    return replace(parsed, regions=options.boxes())


def parse_explanation(engine: Engine, request: Request, body: RequestBody) -> ParsedRequest:
    """Parse a request for an explanation. Raises ServiceError."""
    request.scope["state"]["options_are_json"] = body.is_json
    options = parse_options(ExplanationOptions, body.options, is_json=body.is_json)
    model, captioner = engine.captioner(options.model)
    if (num_words := captioner.count_words(options.caption)) > MAX_CAPTION_WORDS:
        detail = f"caption has {num_words} words; at most {MAX_CAPTION_WORDS} can be explained: send a shorter one"
        raise option_error("caption", detail)
    _check_maps(engine, options)
    return _parsed(request, body, model, captioner, options, None, options.caption)


def _dense(options: RegionOptions, model: str, captioner: Captioner, generation: GenerationOptions) -> GenerationOptions:
    """Return the options of the task that locates and describes everything. Raises ServiceError if there is none."""
    tasks = dense_tasks(captioner.config.tasks)
    if not tasks:
        detail = (
            f"dense is true, but the checkpoint {model!r} does not locate what it describes; use one that does, such as a "
            "Florence-2, or send regions"
        )
        raise option_error("dense", detail)
    if options.regions or generation.task not in ("", *tasks):
        detail = f"dense is true, and {'regions' if options.regions else 'task'} are set, too; send one of them"
        raise option_error("dense", detail)
    return replace(generation, task=generation.task or tasks[0])


def _check_maps(engine: Engine, options: MapOptions) -> None:
    """Raises ServiceError (422) for a map method that blocks the model thread, unless the settings allow it."""
    if options.maps in _SLOW_MAPS and not engine.settings.slow_maps:
        detail = (
            f"maps is {options.maps!r}, a decoder pass per patch, for which all other clients would wait; use another method, "
            "the command line, or the service's setting slow_maps"
        )
        raise option_error("maps", detail)


def _parsed(
    request: Request,
    body: RequestBody,
    model: str,
    captioner: Captioner,
    options: MapOptions,
    generation: GenerationOptions | None,
    text: str,
) -> ParsedRequest:
    try:
        language = captioner.language(options.language or "")
    except ConfigError as error:
        raise option_error("language", str(error)) from error
    request_id = request.scope["state"]["request_id"]
    return ParsedRequest(
        request_id, body.images, model, captioner, language, options, generation, text, body.is_json, body.has_line_breaks
    )
