"""The shapes of requests and answers: what the OpenAPI document says and what options are checked against."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from model import ConfigError, GenerationOptions, PatchGrid, fields_of
from service.errors import Problem, named_option, option_problem

MAX_CAPTION_WORDS = 60
_MAP_SIZE = re.compile(r"^(\d{1,3})x(\d{1,3})$")
_MOST_MAP_EDGE = 512
MAX_MAP_VALUES = 4_000_000  # of an answer's maps together: some 50 MB of JSON, a few seconds of one thread


OptionsT = TypeVar("OptionsT", bound=BaseModel)


class MapOptions(BaseModel):
    """What both endpoints take."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: str | None = Field(None, description="a name from /v1/models; the default checkpoint where it is missing")
    language: str | None = Field(None, description="one of the checkpoint's languages")
    maps: Literal["none", "attention"] = Field("attention", description="what kind of map each word gets")
    map_size: str = Field("grid", description="`grid` or WxH up to 512x512", pattern=r"^(grid|\d{1,3}x\d{1,3})$")
    reliance: bool = Field(True, description="per-word image_reliance; false: it is null")

    def target_grid(self) -> PatchGrid | None:
        """Return the grid that maps are resampled to, None for the patch grid itself."""
        found = _MAP_SIZE.match(self.map_size)
        return PatchGrid(int(found[2]), int(found[1])) if found else None


def _caption_options() -> type[MapOptions]:
    fields: dict[str, Any] = {
        info.name: (
            info.hint | None,
            Field(None, ge=info.minimum, le=info.maximum, description=info.help, max_length=1000 if info.hint is str else None),
        )
        for info in fields_of(GenerationOptions)
    }
    return create_model("CaptionOptions", __base__=MapOptions, __doc__="The options of POST /v1/captions.", **fields)


CaptionOptions: type[MapOptions] = _caption_options()


def generation_options(options: MapOptions, defaults: GenerationOptions, *, json: bool) -> GenerationOptions:
    """Return the checkpoint's defaults with what was asked for. Raises Problem where options exclude each other."""
    names = {info.name for info in fields_of(GenerationOptions)}
    given = {name: value for name, value in options.model_dump(include=names).items() if value is not None}
    try:
        return dataclasses.replace(defaults, **given)
    except ConfigError as error:
        # A ConfigError begins with the name of the field.
        raise option_problem(str(error).partition(" ")[0], str(error), json=json) from error


class ExplanationOptions(MapOptions):
    """The options of POST /v1/explanations."""

    caption: str = Field(min_length=1, max_length=4000, description="the caption to explain, up to 60 words")


class LoadOptions(BaseModel):
    """What POST /v1/models/{name}/load takes."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str = Field(min_length=1, max_length=1000, description="a folder of the service's machine, or hub:ID[@REVISION]")


def parse_options(kind: type[OptionsT], values: dict[str, Any], *, json: bool) -> OptionsT:
    """Check options from JSON (typed strictly) or from query and form (all of them text). Raises Problem."""
    try:
        options = kind.model_validate(values, strict=json)
    except ValidationError as error:
        problems = [_option_error(kind, entry, json) for entry in error.errors()]
        raise Problem("invalid_option", "; ".join(entry["detail"] for entry in problems), problems) from error
    target = options.target_grid() if isinstance(options, MapOptions) else None
    if target is not None and not (1 <= target.rows <= _MOST_MAP_EDGE and 1 <= target.columns <= _MOST_MAP_EDGE):
        detail = f"map_size is {values['map_size']!r}; it must be `grid` or between 1x1 and 512x512"
        raise option_problem("map_size", detail, json=json)
    return options


def _option_error(kind: type[BaseModel], entry: Any, json: bool) -> dict[str, str]:
    name = str(entry["loc"][0])[:80] if entry["loc"] else ""
    if entry["type"] == "extra_forbidden":
        known = ", ".join(sorted(kind.model_fields))
        return named_option(name, f"there is no option {name!r}; the options are {known}", json=json)
    if entry["type"] == "missing":
        return named_option(name, f"{name} is missing; {kind.model_fields[name].description}", json=json)
    came = reprlib.repr(entry["input"])
    return named_option(name, f"{name} is {came[:80]}; {entry['msg'][0].lower()}{entry['msg'][1:]}", json=json)


class ImageFacts(BaseModel):
    width: int
    height: int
    format: str
    orientation_applied: int = Field(description="EXIF orientation, 1 to 8; width and height are upright")


class WordMapAnswer(BaseModel):
    rows: int
    columns: int
    values: list[float] = Field(description="row-major, >= 0, sum 1")


class WordAnswer(BaseModel):
    text: str
    start: int = Field(description="text[start:end] of the caption is the word, in Unicode code points")
    end: int
    log_probability: float = Field(description="nats, of the word given the words before it and the picture")
    probability: float
    image_reliance: float | None = Field(description="nats lost when the picture is replaced by none")
    map: WordMapAnswer | None
    image_mass: float | None = Field(description="share of the attention that lies on the picture's cells")
    focus: float | None = Field(description="1 - entropy / ln(cells)")
    box: list[int] | None = Field(description="[x0, y0, x1, y1) around the map's peak, pixels of the upright picture")


class CaptionAnswer(BaseModel):
    text: str
    language: str
    finish_reason: Literal["stop", "length"]
    log_probability: float
    confidence: float | None
    words: list[WordAnswer]


class GridAnswer(BaseModel):
    rows: int
    columns: int
    covers: list[int] = Field(description="what the cells tile, pixels of the upright picture")


class TimingAnswer(BaseModel):
    decode_image_ms: float
    queue_ms: float
    encode_ms: float
    decode_ms: float
    maps_ms: float


class CaptionsAnswer(BaseModel):
    """The answer of POST /v1/captions and POST /v1/explanations."""

    id: str
    object: Literal["caption", "explanation"]
    created: int
    model: str
    image: ImageFacts
    captions: list[CaptionAnswer]
    grid: GridAnswer
    timing: TimingAnswer


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    parameters: int
    image: dict[str, int]
    grid: dict[str, int]
    languages: list[str]
    maps: dict[str, Any] = Field(description="method and its measured pointing score")
    defaults: dict[str, Any] = Field(description="the options' defaults")
    license: str
    card: str


class ModelsAnswer(BaseModel):
    object: Literal["list"]
    data: list[ModelAnswer]


class OptionProblem(BaseModel):
    parameter: str | None = None
    pointer: str | None = None
    detail: str


class ProblemAnswer(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[OptionProblem] | None = None


class BatchAnswer(BaseModel):
    """The answer of POST /v1/captions/batch."""

    object: Literal["list"]
    data: list[CaptionsAnswer | ProblemAnswer] = Field(description="in the order of the pictures")


class HealthAnswer(BaseModel):
    status: str
