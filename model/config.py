"""The configuration of a checkpoint (config.json): image preprocessing, encoder, decoder, maps, default options.

Knows numbers and names, not tensors, files or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.confidence import CAPTION_FEATURES, WORD_FEATURES
from model.errors import ConfigError
from model.options import GenerationOptions

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """How an image becomes the encoder's pixels: the whole image is resized to `height` x `width`, its aspect ratio ignored.

    Only a converted checkpoint whose source does so resizes to `resize_to` first and crops the center.
    """

    height: int = 224  # pixels
    width: int = 224  # pixels
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    resize_to: tuple[int, ...] = ()  # height and width before the center crop; empty: no crop
    full_decode: bool = False  # decode every pixel and apply EXIF before resizing, as the source's own processor does
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # subtracted from values in 0..1
    std: tuple[float, ...] = (0.5, 0.5, 0.5)  # divided by

    def __post_init__(self) -> None:
        _at_least("image height", self.height, 1)
        _at_least("image width", self.width, 1)
        if self.resize_to and (len(self.resize_to) != 2 or self.resize_to[0] < self.height or self.resize_to[1] < self.width):
            raise ConfigError(
                f"resize_to is {self.resize_to!r}; it must be a height and a width, none below {self.height} x {self.width}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean {self.mean!r} and std {self.std!r} need three numbers each, std above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """timm's VisionTransformer over patches or over a convolutional stem (a hybrid), or a model that timm knows by name."""

    timm_model: str = ""  # a timm VisionTransformer, whose numbers the fields below repeat; empty: built from those fields
    hidden_size: int = 384
    num_layers: int = 2
    num_heads: int = 6
    mlp_ratio: float = 4.0
    patch_size: int = 16  # pixels per side; without a stem only
    stem: str = ""  # a timm convolutional backbone; empty: plain patches
    stem_strides: tuple[int, ...] = (16,)  # feature maps taken from the stem; coarser ones are upsampled and concatenated
    stem_detector: str = ""  # a detector of model/detector.py whose class map is one more feature map; empty: none
    centered: bool = False  # strided convolutions of the stem padded so that patches are centered on what they show
    class_token: bool = True
    num_register_tokens: int = 0  # register and distillation tokens, after the class token
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_heads", "patch_size"):
            _at_least(f"encoder {name}", getattr(self, name), 1)
        _at_least("encoder num_layers", self.num_layers, 0)
        _at_least("encoder num_register_tokens", self.num_register_tokens, 0)
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"encoder hidden_size {self.hidden_size} must be a multiple of num_heads, {self.num_heads}")
        if ":" in self.timm_model:
            raise ConfigError(f"encoder timm_model is {self.timm_model!r}; it must be a name that timm knows, not an address")
        if self.timm_model and self.stem:
            raise ConfigError(f"the encoder has timm_model {self.timm_model!r} and stem {self.stem!r}; it can have one of them")
        if self.stem and (not self.stem_strides or list(self.stem_strides) != sorted(set(self.stem_strides))):
            raise ConfigError(f"stem_strides {self.stem_strides!r} must be one or more strides, smallest first")

        if (self.stem_detector or self.centered) and not self.stem:
            raise ConfigError(
                f"stem_detector is {self.stem_detector!r}, centered {self.centered}, but there is no stem; name one"
            )

    @property
    def num_prefix_tokens(self) -> int:
        """Class, distillation and register tokens: they come before the patches and have no position in the image."""
        return int(self.class_token) + self.num_register_tokens

    @property
    def stride(self) -> int:
        """Pixels per patch and side."""
        return self.stem_strides[0] if self.stem else self.patch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """The text decoder. The defaults are our own; other families differ in these fields and in nothing else.

    Cross-attention reads image tokens of `encoder_hidden_size`, or `image_projection` maps them to `hidden_size` first.
    """

    vocab_size: int = 4096
    hidden_size: int = 384
    num_layers: int = 3
    num_heads: int = 6
    intermediate_size: int = 1536
    max_positions: int = 96  # longest sequence, start token counted
    encoder_hidden_size: int = 384
    layer_norm_eps: float = 1e-5
    pre_norm: bool = True  # layer norm before each block (GPT-2), or after its residual (BERT, BART)
    activation: Activation = "gelu"
    position_embedding_type: Literal["learned", "sinusoidal"] = "learned"
    position_offset: int = 0  # rows of the table before the first position
    embedding_scale: float = 1.0  # token embeddings are multiplied by it
    embedding_norm: bool = False  # layer norm after token and position embeddings
    final_norm: bool = True  # layer norm after the last layer
    head_transform: bool = False  # linear layer, activation and layer norm before the head
    head_bias: bool = False
    tie_word_embeddings: bool = True
    image_projection: bool = False  # image tokens are projected to `hidden_size` before cross-attention
    null_key: bool = True  # a learned key and value in every cross-attention: attention that needs no image
    bos_token_id: int = 1  # first input of the decoder
    eos_token_id: int = 2
    more_eos_token_ids: tuple[int, ...] = ()  # other ids that end a caption; a converted checkpoint may have some
    pad_token_id: int = 0
    suppress_tokens: tuple[int, ...] = (0, 1)  # ids that decoding never chooses: our own pad and start tokens

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions", "encoder_hidden_size",
        ):  # fmt: skip
            _at_least(f"decoder {name}", getattr(self, name), 1)
        _at_least("decoder position_offset", self.position_offset, 0)
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"decoder hidden_size {self.hidden_size} must be a multiple of num_heads, {self.num_heads}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..{self.vocab_size - 1}")
        if not all(0 <= index < self.vocab_size for index in self.more_eos_token_ids):
            raise ConfigError(f"more_eos_token_ids is {self.more_eos_token_ids!r}; it must hold ids in 0..{self.vocab_size - 1}")
        if self.eos_token_id in self.suppress_tokens or not all(0 <= index < self.vocab_size for index in self.suppress_tokens):
            raise ConfigError(
                f"suppress_tokens is {self.suppress_tokens!r}; it must hold ids in 0..{self.vocab_size - 1}, not the end token"
            )

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a caption."""
        return (self.eos_token_id, *self.more_eos_token_ids)

    @property
    def special_ids(self) -> tuple[tuple[str, int], ...]:
        """Ids that must be special tokens of the tokenizer, each with the name of its field."""
        ends = (("more_eos_token_ids", index) for index in self.more_eos_token_ids)
        named = ((name, getattr(self, name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id"))
        return (*named, *ends)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapConfig:
    """How the checkpoint's attention maps are computed (model/maps): the mean cross-attention of the selected heads.

    A geometric mean is high only where all heads attend.
    """

    method: str = "attention"  # default method: a name of model.maps.MAP_METHODS
    head_mean: Literal["arithmetic", "geometric"] = "arithmetic"
    heads: tuple[tuple[int, int], ...] = ()  # (layer, head) pairs that are averaged; empty: all of them
    box_threshold: float = 0.5  # of the peak: patches above it belong to the word's box
    pointing: float | None = None  # measured share of object words whose peak is on the object; see the model card

    def __post_init__(self) -> None:
        if not 0 < self.box_threshold < 1:
            raise ConfigError(f"box_threshold is {self.box_threshold}; it must be above 0 and below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceConfig:
    """Calibrated confidence (model/confidence.py): an intercept, then a weight per feature. Empty: not calibrated."""

    caption: tuple[float, ...] = ()
    word: tuple[float, ...] = ()
    word_offsets: dict[str, float] = field(default_factory=dict)  # added to the score of these words, in lower case

    def __post_init__(self) -> None:
        for name, features in (("caption", CAPTION_FEATURES), ("word", WORD_FEATURES)):
            weights = getattr(self, name)
            if weights and len(weights) != 1 + len(features):
                raise ConfigError(f"confidence {name} has {len(weights)} weights; it must have {1 + len(features)}, or none")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything in a checkpoint's config.json."""

    image: ImageConfig = field(default_factory=ImageConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    maps: MapConfig = field(default_factory=MapConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)  # of captions in the first language
    generation: GenerationOptions = field(default_factory=GenerationOptions)  # defaults of this checkpoint
    unconditional: Literal["learned", "neutral"] = "learned"  # "no image": one learned vector, or mean tokens of neutral images
    source_family: str = ""  # family of the checkpoint that this one was converted from; empty: trained by this project
    languages: tuple[str, ...] = ("en",)  # BCP 47, the default first
    language_token_ids: tuple[int, ...] = ()  # a token per language, after the start token; empty: trained with one language
    license: str = ""
    created: int = 0  # seconds since 1970

    def __post_init__(self) -> None:
        if self.encoder.hidden_size != self.decoder.encoder_hidden_size:
            raise ConfigError(
                f"the encoder's hidden_size is {self.encoder.hidden_size} but the decoder's encoder_hidden_size is "
                f"{self.decoder.encoder_hidden_size}; they must be equal"
            )
        stride = self.encoder.stride
        if self.image.height % stride or self.image.width % stride:
            raise ConfigError(
                f"an image of {self.image.width} x {self.image.height} cannot be divided into patches of {stride} pixels; "
                "use multiples of the patch size or stem stride"
            )
        for layer, head in self.maps.heads:
            if not (0 <= layer < self.decoder.num_layers and 0 <= head < self.decoder.num_heads):
                raise ConfigError(
                    f"maps.heads has layer {layer}, head {head}; the decoder has {self.decoder.num_layers} layers "
                    f"of {self.decoder.num_heads} heads"
                )
        if not self.languages:
            raise ConfigError("languages is empty; name at least one, such as 'en'")
        if len(self.languages) > 1 and len(self.language_token_ids) != len(self.languages):
            raise ConfigError(
                f"languages is {self.languages!r} but there are {len(self.language_token_ids)} language_token_ids; a checkpoint "
                "that was trained with several languages has a token for each"
            )
        if not all(0 <= index < self.decoder.vocab_size for index in self.language_token_ids):
            raise ConfigError(
                f"language_token_ids is {self.language_token_ids!r}; ids must be in 0..{self.decoder.vocab_size - 1}"
            )

    @property
    def is_converted(self) -> bool:
        return bool(self.source_family)


def _at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}")
