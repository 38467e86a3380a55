"""The configuration of the text decoder, and of the encoder that joins a prompt to the image tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigError
from model.fields import require_at_least

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]


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
    padding_position: bool = True  # padding has a position as other tokens do; False: row `pad_token_id` of the table (RoBERTa)
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
    forced_bos_token_id: int | None = None  # id that always follows the start token
    forced_eos_token_id: int | None = None  # id that ends a caption at its last token, whatever its probability
    suppress_tokens: tuple[int, ...] = (0, 1)  # ids that decoding never chooses: our own pad and start tokens

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions", "encoder_hidden_size",
        ):  # fmt: skip
            require_at_least(f"decoder {name}", getattr(self, name), 1)
        require_at_least("decoder position_offset", self.position_offset, 0)
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"decoder hidden_size {self.hidden_size} must be a multiple of num_heads, {self.num_heads}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..{self.vocab_size - 1}")
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            if not 0 <= (getattr(self, name) or 0) < self.vocab_size:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..{self.vocab_size - 1}, or null")
        if self.forced_eos_token_id not in (None, *self.eos_token_ids):
            raise ConfigError(f"forced_eos_token_id is {self.forced_eos_token_id}; it must be an id that ends a caption, or null")
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
class PromptEncoderConfig:
    """The encoder that reads image tokens and a prompt together (BART's, in Florence-2); the decoder attends to its output.

    Its hidden size and its token embeddings are the decoder's. A prompt stands between `bos_token_id` and `eos_token_id`.
    """

    num_layers: int = 6
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 1024  # image tokens and prompt together
    position_offset: int = 2
    layer_norm_eps: float = 1e-5
    activation: Activation = "gelu"
    embedding_scale: float = 1.0  # token embeddings of the prompt are multiplied by it
    bos_token_id: int = 0
    eos_token_id: int = 2
    first_location_id: int = (
        0  # tokens of coordinates: `num_locations` ids from here on stand for bins of the image's width or height
    )
    num_locations: int = 0
    default_ids: tuple[int, ...] = ()  # the prompt of the first task: what training uses

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "intermediate_size", "max_positions"):
            require_at_least(f"prompt encoder {name}", getattr(self, name), 1)
        for name in ("position_offset", "num_locations", "first_location_id", "bos_token_id", "eos_token_id"):
            require_at_least(f"prompt encoder {name}", getattr(self, name), 0)
