"""The schemas of the native API: options of requests, derived from their declarations, and the bodies of responses."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from model import MAP_METHODS, Box, ConfigError, GenerationOptions, PatchGrid, fields_of
from service.errors import OptionError, ServiceError, option_error

MAX_CAPTION_WORDS = 60
MAX_REGIONS = 32
MAX_MAP_VALUES = 4_000_000  # of a response's maps together: some 50 MB of JSON, a few seconds of one thread

_MAP_SIZE = r"^(grid|none|\d{1,3}x\d{1,3})$"
_MAX_MAP_EDGE = 512
_MAX_TEXT = 1000  # characters of a text option
_RANGES = {info.name: f"{info.range_text} {info.unit}".strip() for info in fields_of(GenerationOptions)}
_MAP_HELP = "; ".join(["none", *(f"{name}: {method.help}" for name, method in MAP_METHODS.items())])
MapName = Literal["none", *MAP_METHODS]  # type: ignore[valid-type]  # the registry's names
MapTarget = PatchGrid | Literal["grid", "none"]
Region = Annotated[list[Annotated[float, Field(ge=-(10**6), le=10**6)]], Field(min_length=4, max_length=4)]

OptionsT = TypeVar("OptionsT", bound=BaseModel)


class MapOptions(BaseModel):
    """The options of captions and explanations."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: str | None = Field(None, max_length=_MAX_TEXT, description="a name from /v1/models; default: the first checkpoint")
    language: str | None = Field(
        None,
        max_length=_MAX_TEXT,
        description="one of the checkpoint's languages, BCP 47; en-US is en where that has no own; default: its first",
    )
    maps: MapName | None = Field(None, description=f"map of each word; default: the checkpoint's method. {_MAP_HELP}")
    map_size: str = Field(
        "grid",
        description="`grid`, WxH up to 512x512, or `none`: box, focus and image_mass without the maps' values",
        pattern=_MAP_SIZE,
    )
    reliance: bool = Field(True, description="image_reliance of each word; false: it is null")

    def target(self) -> MapTarget:
        """Return what maps become: "grid": as they are, "none": no values, or the grid that they are resampled to."""
        if self.map_size in ("grid", "none"):
            return "grid" if self.map_size == "grid" else "none"
        columns, rows = map(int, self.map_size.split("x"))
        return PatchGrid(rows, columns)


def _region_list(value: object) -> object:
    """Return a list of regions that a query or form has as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


class RegionOptions(MapOptions):
    """The options that say which parts of an image are captioned."""

    regions: Annotated[list[Region] | None, BeforeValidator(_region_list)] = Field(
        None,
        min_length=1,
        max_length=MAX_REGIONS,
        description=f"parts of the image, each captioned alone: 1 to {MAX_REGIONS} [x0, y0, x1, y1), pixels of the upright image",
    )
    dense: bool = Field(False, description="a caption for every thing that the checkpoint locates, each with its region")

    def boxes(self) -> tuple[Box, ...]:
        """Return the regions. Raises ServiceError for one whose edges are in another order."""
        boxes = tuple(Box(*region) for region in self.regions or ())
        for box in boxes:
            if not (box.x0 < box.x1 and box.y0 < box.y1):
                corners = [box.x0, box.y0, box.x1, box.y1]
                raise option_error("regions", f"regions contains {corners}; it must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
        return boxes


def _caption_options() -> type[RegionOptions]:
    """Return RegionOptions with a field for each declared option of GenerationOptions; None is the checkpoint's default."""
    fields: dict[str, Any] = {
        info.name: (
            info.hint | None,
            Field(
                None,
                ge=info.minimum,
                le=info.maximum,
                max_length=_MAX_TEXT if info.hint is str else None,
                description=f"{info.help} ({info.unit})" if info.unit else info.help,
            ),
        )
        for info in fields_of(GenerationOptions)
    }
    doc = "The options of POST /v1/captions; one that is missing takes the checkpoint's default."
    return create_model("CaptionOptions", __base__=RegionOptions, __doc__=doc, **fields)


CaptionOptions: type[RegionOptions] = _caption_options()


class ExplanationOptions(MapOptions):
    """The options of POST /v1/explanations."""

    caption: str = Field(min_length=1, max_length=4000, description="the caption to explain, up to 60 words")


class LoadOptions(BaseModel):
    """The body of POST /v1/models/{name}/load."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str = Field(min_length=1, max_length=1000, description="a folder of the service's machine, or hub:ID[@REVISION]")


def generation_options(options: MapOptions, defaults: GenerationOptions) -> GenerationOptions:
    """Return the checkpoint's defaults with the request's options. Raises ServiceError if options exclude each other."""
    names = {info.name for info in fields_of(GenerationOptions)}
    values = {name: value for name, value in options.model_dump(include=names).items() if value is not None}
    try:
        return dataclasses.replace(defaults, **values)
    except ConfigError as error:  # it begins with the name of the field
        raise option_error(str(error).partition(" ")[0], str(error)) from error


def parse_options(kind: type[OptionsT], values: dict[str, Any], *, is_json: bool) -> OptionsT:
    """Check options from JSON (typed strictly) or from query and form (all of them text). Raises ServiceError."""
    try:
        options = kind.model_validate(values, strict=is_json)
    except ValidationError as error:
        # A field that is a union reports an error per arm: one per option is enough.
        errors = list({str(entry["loc"][:1]): _option_error(kind, entry) for entry in reversed(error.errors())}.values())[::-1]
        raise ServiceError("invalid_option", "; ".join(entry.detail for entry in errors), errors) from error
    target = options.target() if isinstance(options, MapOptions) else "grid"
    if isinstance(target, PatchGrid) and not (1 <= target.rows <= _MAX_MAP_EDGE and 1 <= target.columns <= _MAX_MAP_EDGE):
        detail = f"map_size is {values['map_size']!r}; it must be `grid`, `none`, or between 1x1 and 512x512"
        raise option_error("map_size", detail)
    return options


def _option_error(kind: type[BaseModel], entry: Any) -> OptionError:
    name = str(entry["loc"][0])[:80] if entry["loc"] else ""
    if entry["type"] == "extra_forbidden":
        known = ", ".join(sorted(kind.model_fields))
        return OptionError(name, f"there is no option {name!r}; the options are {known}")
    if entry["type"] == "missing":
        return OptionError(name, f"{name} is missing; {kind.model_fields[name].description}")
    received = reprlib.repr(entry["input"])
    return OptionError(name, f"{name} is {received[:80]}; it must be {_allowed(kind.model_fields[name], name)}")


def _allowed(field: FieldInfo, name: str) -> str:
    """Return the allowed values of an option, for people: pydantic's own words are for developers."""
    if name in _RANGES and _RANGES[name] != "text":
        allowed = _RANGES[name]
        return f"one of {allowed}" if "," in allowed else f"an integer, {allowed}" if _is_integer(field) else allowed
    if name == "maps":
        return f"one of none, {', '.join(MAP_METHODS)}"
    if name == "regions":
        return f"a list of 1 to {MAX_REGIONS} [x0, y0, x1, y1], pixels of the upright image"
    if name == "map_size":
        return "`grid`, `none`, or WxH such as 32x24"
    if field.annotation is bool:
        return "true or false"
    limits = {type(limit): limit for limit in field.metadata}
    shortest = limits[MinLen].min_length if MinLen in limits else 0
    return f"text of {shortest} to {limits[MaxLen].max_length} characters"


def _is_integer(field: FieldInfo) -> bool:
    return int in get_args(field.annotation)


class ImageInfo(BaseModel):
    width: int
    height: int
    format: str
    orientation_applied: int = Field(description="EXIF orientation, 1 to 8; width and height are upright")
    is_truncated: bool = Field(description="whether a part of the file could not be decoded (setting accept_truncated)")


class MapBody(BaseModel):
    rows: int
    columns: int
    values: list[float] = Field(description="row-major, >= 0, sum 1")


class WordBody(BaseModel):
    text: str
    start: int = Field(description="text[start:end] of the caption is the word, in Unicode code points")
    end: int
    log_probability: float = Field(description="nats, of the word given the words before it and the image")
    probability: float
    confidence: float | None = Field(description="probability that the image shows it; null if not calibrated")
    image_reliance: float | None = Field(description="nats lost if the image is replaced by none")
    map: MapBody | None
    image_mass: float | None = Field(description="share of the attention on the image's patches; null for other methods")
    prompt_mass: float | None = Field(description="share of the attention on the task's prompt; null without one")
    focus: float | None = Field(description="1 - entropy / ln(cells)")
    box: list[int] | None = Field(description="[x0, y0, x1, y1) around the map's peak, pixels of the upright image")


class GridBody(BaseModel):
    rows: int
    columns: int
    covers: list[int] = Field(description="what the patches tile, pixels of the upright image")


class CaptionBody(BaseModel):
    text: str | None = Field(description="null if finish_reason is uncertain")
    language: str
    finish_reason: Literal["stop", "length", "uncertain"]
    log_probability: float
    confidence: float | None = Field(description="probability that it is as good as a person's; null if not calibrated")
    words: list[WordBody]
    region: list[int] | None = Field(description="[x0, y0, x1, y1) of what it describes; null: the whole image")
    polygon: list[int] | None = Field(description="corners x0, y0, x1, y1, … of a region that is no rectangle")
    grid: GridBody | None = Field(description="the patches of its maps, if they are those of a crop around the region")


class TimingBody(BaseModel):
    decode_image_ms: float
    queue_ms: float
    encode_ms: float
    decode_ms: float
    maps_ms: float


class CaptionsBody(BaseModel):
    """The response of POST /v1/captions and POST /v1/explanations."""

    id: str
    object: Literal["caption", "explanation"]
    created: int
    model: str
    image: ImageInfo
    captions: list[CaptionBody]
    grid: GridBody
    timing: TimingBody


class TaskBody(BaseModel):
    name: str
    input: Literal["none", "text", "region"] = Field(description="what the task is about: the image, task_input, or regions")
    output: Literal["text", "boxes", "quads", "proposals"] = Field(description="a text, or texts with regions")


class ModelBody(BaseModel):
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
    tasks: list[TaskBody] = Field(description="what the option task can be, the default first; empty: it has one task")
    defaults: dict[str, Any] = Field(description="the options' defaults")
    license: str
    card: str


class ModelsBody(BaseModel):
    object: Literal["list"]
    data: list[ModelBody]


class OptionProblemBody(BaseModel):
    parameter: str | None = None
    pointer: str | None = None
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[OptionProblemBody] | None = None


class BatchBody(BaseModel):
    """The response of POST /v1/captions/batch."""

    object: Literal["list"]
    data: list[CaptionsBody | ProblemBody] = Field(description="in the order of the images")


class HealthBody(BaseModel):
    status: str


class VersionBody(BaseModel):
    version: str
