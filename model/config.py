"""What a checkpoint is made of, and how a caption is asked for: checked values with a JSON round trip.

Knows numbers and names. Does not know tensors, files or the environment.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from model.errors import ConfigError

Strategy = Literal["greedy", "beam", "sample"]
EarlyStopping = Literal["false", "true", "never"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """How a photograph becomes the encoder's pixels: the whole of it is squashed to `height` x `width`.

    Only a converted checkpoint whose source does so squashes to `crop` first and cuts the middle out.
    """

    height: int = 224  # pixels
    width: int = 224  # pixels
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    crop: tuple[int, ...] = ()  # height and width before the middle is cut out; empty: nothing is cut away
    exact: bool = False  # every pixel is decoded and the picture is turned first, as a source's own processor does
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # subtracted from values in 0..1
    std: tuple[float, ...] = (0.5, 0.5, 0.5)  # divided by

    def __post_init__(self) -> None:
        _at_least("image height", self.height, 1)
        _at_least("image width", self.width, 1)
        if self.crop and (len(self.crop) != 2 or self.crop[0] < self.height or self.crop[1] < self.width):
            raise ConfigError(f"crop is {self.crop!r}; it must be a height and a width, none below {self.height} x {self.width}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean {self.mean!r} and std {self.std!r} need three numbers each, std above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """timm's VisionTransformer over plain patches or over a convolutional stem (a hybrid), or one that timm knows by name."""

    timm: str = ""  # a timm VisionTransformer by name, whose numbers the fields below repeat; empty: made of those fields
    width: int = 384
    depth: int = 2  # transformer blocks
    heads: int = 6
    mlp_ratio: float = 4.0
    patch_size: int = 16  # pixels a side; without a stem only
    stem: str = ""  # a timm convolutional backbone; empty: plain patches
    stem_strides: tuple[int, ...] = (16,)  # feature maps taken from the stem; coarser ones are enlarged and joined
    class_token: bool = True
    registers: int = 0  # and distillation tokens: prefix tokens behind the class token
    norm_eps: float = 1e-6
    qkv_bias: bool = True  # whether queries, keys and values have a bias

    def __post_init__(self) -> None:
        for name in ("width", "heads", "patch_size"):
            _at_least(f"encoder {name}", getattr(self, name), 1)
        _at_least("encoder depth", self.depth, 0)
        _at_least("encoder registers", self.registers, 0)
        if self.width % self.heads:
            raise ConfigError(f"encoder width {self.width} must be a multiple of its heads, {self.heads}")
        if ":" in self.timm:
            raise ConfigError(f"encoder timm is {self.timm!r}; it must be a name that timm knows, not an address")
        if self.timm and self.stem:
            raise ConfigError(f"the encoder is timm's {self.timm!r} and has the stem {self.stem!r}; it can be one of them")
        if self.stem and (not self.stem_strides or list(self.stem_strides) != sorted(set(self.stem_strides))):
            raise ConfigError(f"stem_strides {self.stem_strides!r} must be one or more strides, smallest first")

    @property
    def prefix(self) -> int:
        """Class and register tokens: they come before the patches and have no place in the picture."""
        return int(self.class_token) + self.registers

    @property
    def stride(self) -> int:
        """Pixels a cell is wide and high."""
        return self.stem_strides[0] if self.stem else self.patch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """The text decoder. The defaults are our own; other families differ in these fields and in nothing else.

    `width` is that of the tokens, `image_width` that of the image tokens; cross-attention reads these as they are, or
    `image_projection` brings them to `width` first.
    """

    vocabulary: int = 4096
    width: int = 384
    depth: int = 3
    heads: int = 6
    mlp_width: int = 1536
    positions: int = 96  # longest sequence, start token counted
    image_width: int = 384  # width of the image tokens that cross-attention reads
    norm_eps: float = 1e-5  # of every norm
    pre_norm: bool = True  # a norm before each part (GPT-2), or behind its residual (BERT, BART)
    activation: Activation = "gelu"
    position_kind: Literal["learned", "sinusoidal"] = "learned"
    position_offset: int = 0  # rows of the table before the first position
    embedding_scale: float = 1.0  # token embeddings are multiplied by it
    embedding_norm: bool = False  # a norm over token and position together
    final_norm: bool = True  # a norm behind the last layer
    head_transform: bool = False  # linear layer, activation and norm before the head
    head_bias: bool = False
    tied_head: bool = True  # the head is the token embedding
    image_projection: bool = False  # image tokens are brought to `width` before cross-attention
    null_key: bool = True  # a learned key and value in every cross-attention: attention that needs no picture
    start_id: int = 1
    end_id: int = 2
    pad_id: int = 0
    never: tuple[int, ...] = (0, 1)  # ids that no caption holds and decoding bans: our own pad and start

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "depth", "heads", "mlp_width", "positions", "image_width"):
            _at_least(f"decoder {name}", getattr(self, name), 1)
        _at_least("decoder position_offset", self.position_offset, 0)
        if self.width % self.heads:
            raise ConfigError(f"decoder width {self.width} must be a multiple of its heads, {self.heads}")
        for name in ("start_id", "end_id", "pad_id"):
            if not 0 <= getattr(self, name) < self.vocabulary:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..{self.vocabulary - 1}")
        if self.end_id in self.never or not all(0 <= index < self.vocabulary for index in self.never):
            raise ConfigError(
                f"never is {self.never!r}; it must name ids in 0..{self.vocabulary - 1}, the end token not among them"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MapConfig:
    """How a word's map is made: `attention` is the mean cross-attention of the chosen heads at the producing rows.

    A geometric mean asks the heads to agree: a cell that one of them does not look at counts for little.
    """

    method: Literal["attention"] = "attention"
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    heads: tuple[tuple[int, int], ...] = ()  # (layer, head) pairs that are averaged; empty: all of them
    pointing: float | None = None  # measured share of object words whose peak lies on the object; the card says where


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationOptions:
    """How a caption is searched for; the names and ranges are those of docs/service.md."""

    strategy: Strategy = "beam"
    beams: int = 3  # width of `beam`
    count: int = 1  # captions returned, best first
    min_words: int = 0
    max_words: int = 30
    max_tokens: int = 64  # tokens generated, the end token counted, start and prompt not
    min_tokens: int = 0  # tokens generated before the end token may be
    early_stopping: EarlyStopping = "false"  # of `beam`, as transformers has it: when to give up live rows
    length_penalty: float = 1.0  # score = sum(log p) / length ** penalty; 0 favours short captions
    no_repeat: int = 0  # no n-gram of this many tokens twice; 0: off
    repetition_penalty: float = 1.0  # 1: off
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    seed: int = 0
    prompt: str = ""  # the caption's first words

    def __post_init__(self) -> None:
        if self.strategy not in ("greedy", "beam", "sample"):
            raise ConfigError(f"strategy is {self.strategy!r}; it must be 'greedy', 'beam' or 'sample'")
        _within("beams", self.beams, 1, 8)
        _within("count", self.count, 1, 8)
        _within("min_words", self.min_words, 0, 60)
        _within("max_words", self.max_words, 0, 60)
        _within("max_tokens", self.max_tokens, 1, 256)
        _within("min_tokens", self.min_tokens, 0, 256)
        if self.early_stopping not in ("false", "true", "never"):
            raise ConfigError(f"early_stopping is {self.early_stopping!r}; it must be 'false', 'true' or 'never'")
        _within("length_penalty", self.length_penalty, -2.0, 4.0)
        _within("no_repeat", self.no_repeat, 0, 6)
        _within("repetition_penalty", self.repetition_penalty, 0.5, 2.0)
        _within("temperature", self.temperature, 0.05, 5.0)
        _within("top_k", self.top_k, 0, 1000)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("seed", self.seed, -(2**63), 2**63 - 1)
        if self.min_words > self.max_words:
            raise ConfigError(f"min_words is {self.min_words}; it must not be above max_words, {self.max_words}")
        if self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens is {self.min_tokens}; it must not be above max_tokens, {self.max_tokens}")
        if self.strategy == "beam" and self.count > self.beams:
            raise ConfigError(f"count is {self.count}; with strategy 'beam' it must not be above beams, {self.beams}")
        if self.strategy == "greedy" and self.count != 1:
            raise ConfigError(f"count is {self.count}; strategy 'greedy' gives 1 caption, use 'beam' or 'sample'")

    @property
    def rows(self) -> int:
        """Rows of a batch that one image needs."""
        if self.strategy == "greedy":
            return 1
        return self.beams if self.strategy == "beam" else self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that a checkpoint's config.json holds."""

    image: ImageConfig = field(default_factory=ImageConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    maps: MapConfig = field(default_factory=MapConfig)
    generation: GenerationOptions = field(default_factory=GenerationOptions)  # the defaults of this checkpoint
    no_image: Literal["learned", "neutral"] = "learned"  # one vector, or the mean tokens of pictures of nothing
    languages: tuple[str, ...] = ("en",)  # BCP 47, the default first
    licence: str = ""
    created: int = 0  # seconds since 1970

    def __post_init__(self) -> None:
        if self.encoder.width != self.decoder.image_width:
            raise ConfigError(
                f"the encoder is {self.encoder.width} wide but the decoder's image_width is "
                f"{self.decoder.image_width}; they must be equal"
            )
        stride = self.encoder.stride
        if self.image.height % stride or self.image.width % stride:
            raise ConfigError(
                f"an image of {self.image.width} x {self.image.height} cannot be tiled by cells of {stride} pixels; "
                "use multiples of the patch size or stem stride"
            )
        for layer, head in self.maps.heads:
            if not (0 <= layer < self.decoder.depth and 0 <= head < self.decoder.heads):
                raise ConfigError(
                    f"maps.heads names layer {layer}, head {head}; the decoder has {self.decoder.depth} layers "
                    f"of {self.decoder.heads} heads"
                )
        if not self.languages:
            raise ConfigError("languages is empty; name at least one, such as 'en'")


def to_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[_T], values: Any, where: str = "config") -> _T:
    """Build the dataclass `kind` from JSON values. A missing or unknown field is a ConfigError that names it."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {type(values).__name__}; it must be an object with the fields of {kind.__name__}")
    fields = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if missing := sorted(fields - values.keys()):
        raise ConfigError(f"{where} lacks {', '.join(missing)}; a checkpoint says every field, none is guessed")
    if unknown := sorted(values.keys() - fields):
        raise ConfigError(f"{where} has unknown fields {', '.join(unknown)}; {kind.__name__} has {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], values[name], f"{where}.{name}") for name in fields})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}; it must be a list")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f"{where} has {len(value)} entries; it must have {len(inner)}")
        return tuple(
            _value(kind, entry, f"{where}[{index}]") for index, (kind, entry) in enumerate(zip(inner, value, strict=True))
        )
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, arguments))}")
        return value
    kinds = arguments if origin is types.UnionType else (hint,)
    if value is None and type(None) in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not any(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for kind in kinds):
        raise ConfigError(f"{where} is {value!r}; it must be {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # a NaN fails as well
        raise ConfigError(f"{name} is {value}; it must be between {low} and {high}")
