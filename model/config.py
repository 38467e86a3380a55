"""The configuration of a checkpoint (config.json): its parts, maps, tasks, default options.

Knows numbers and names, not tensors, files or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.confidence import CAPTION_FEATURES, WORD_FEATURES
from model.decoder_config import Activation, DecoderConfig, PromptEncoderConfig
from model.encoder_config import EncoderConfig, ImageConfig
from model.errors import ConfigError
from model.options import GenerationOptions
from model.tasks import TaskConfig, find_task

__all__ = [
    "Activation",
    "ConfidenceConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ImageConfig",
    "MapConfig",
    "ModelConfig",
    "PromptEncoderConfig",
    "TaskConfig",
]


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
    prompt_encoder: PromptEncoderConfig | None = None  # None: the decoder attends to the image tokens themselves
    tasks: tuple[TaskConfig, ...] = ()  # what a checkpoint with a prompt encoder can do, the default first
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
        self._check_prompts()
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

    def _check_prompts(self) -> None:
        prompt, decoder = self.prompt_encoder, self.decoder
        if bool(self.tasks) != (prompt is not None):
            raise ConfigError(
                f"there are {len(self.tasks)} tasks; a checkpoint with a prompt_encoder needs them, no other has them"
            )
        if prompt is None:
            return
        if decoder.encoder_hidden_size != decoder.hidden_size or decoder.hidden_size % prompt.num_heads or decoder.null_key:
            raise ConfigError(
                f"with a prompt_encoder of {prompt.num_heads} heads the decoder's encoder_hidden_size, "
                f"{decoder.encoder_hidden_size}, must be its hidden_size, {decoder.hidden_size}, a multiple of the heads, "
                "and null_key must be false"
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names) or self.tasks[0].input != "none":
            raise ConfigError(f"tasks are {', '.join(names)}; names must differ, and the first, the default, needs no input")
        find_task(self.tasks, self.generation.task)
        last_location = prompt.first_location_id + max(prompt.num_locations, 1) - 1
        ids = (prompt.bos_token_id, prompt.eos_token_id, *prompt.default_ids, last_location)
        if not all(0 <= index < decoder.vocab_size for index in ids):
            raise ConfigError(f"ids of the prompt_encoder must be in 0..{decoder.vocab_size - 1}")
        if any(task.input == "region" or task.output != "text" for task in self.tasks) and not prompt.num_locations:
            raise ConfigError("num_locations is 0; tasks with regions need tokens for coordinates")

    @property
    def is_converted(self) -> bool:
        return bool(self.source_family)
