"""The family of a source, and its config and tensors in our layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from model.config import DecoderConfig, EncoderConfig, ImageConfig
from model.errors import CheckpointError, ConfigError
from model.geometry import PatchGrid
from model.pretrained.architectures import family_of
from model.pretrained.blip import blip_config, blip_encoder, blip_encoder_weights, blip_weights
from model.pretrained.gpt2 import gpt2_config, gpt2_weights
from model.pretrained.positions import resized_positions
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds, special_ids
from model.pretrained.tensors import SourceTensors, Weights
from model.pretrained.trocr import trocr_config, trocr_weights
from model.pretrained.vit import has_qkv_bias, vit_config, vit_weights

_DECODERS = {"gpt2": (gpt2_config, gpt2_weights), "trocr": (trocr_config, trocr_weights)}
_POSITIONS = "encoder.vit.pos_embed"

# Heads of published networks by hidden size. Another number of heads changes no tensor's shape, but every caption.
_HEADS = {192: (3,), 256: (4, 8), 384: (6,), 512: (8,), 768: (12,), 1024: (16,), 1280: (16, 20), 1600: (25,)}


def convert_network(
    config: dict[str, Any],
    generation: dict[str, Any],
    tensors: dict[str, Tensor],
    image: ImageConfig | None = None,
    *,
    unusual_heads: bool = False,
) -> tuple[EncoderConfig, DecoderConfig, Weights]:
    """Return encoder, decoder and weights, with our names, of a source's config.json, generation_config.json and tensors.

    Every number is read from the source; nothing is assumed. `image` may have another size than the source's: position
    embeddings are resized. The weights lack `no_image`, which no source has. Raises CheckpointError that names an unknown
    family, field or tensor, or a number of heads that no published network of that hidden size has, unless `unusual_heads`.
    """
    source = SourceTensors(tensors)
    try:
        if family_of(config) == "blip":
            encoder, decoder, weights = _blip(SourceConfig(config), source)
        else:
            encoder, decoder, weights = _encoder_decoder(SourceConfig(config), generation, source)
    except ConfigError as error:
        raise CheckpointError(f"the source's config.json cannot be used: {error}; copy it again from its source") from error
    source.finish()
    for part, heads, size in (
        ("encoder", encoder.num_heads, encoder.hidden_size),
        ("decoder", decoder.num_heads, decoder.hidden_size),
    ):
        if not unusual_heads and heads not in _HEADS.get(size, (heads,)):
            usual = " or ".join(map(str, _HEADS[size]))
            raise CheckpointError(
                f"the {part} has {heads} heads for a hidden size of {size}; published ones have {usual}: the config was changed, "
                "or use --unusual-heads if it was trained so"
            )
    if image is not None:
        old, new = _grid(source_image(config), encoder), _grid(image, encoder)
        weights[_POSITIONS] = resized_positions(weights[_POSITIONS], encoder.num_prefix_tokens, old, new)
    return encoder, decoder, weights


def source_image(config: dict[str, Any]) -> ImageConfig:
    """Return the image size of a source's encoder; mean and std are in its preprocessor_config.json."""
    fields = SourceConfig(config)
    height, width = fields.part("vision_config" if family_of(config) == "blip" else "encoder").size("image_size")
    return ImageConfig(height=height, width=width)


def _grid(image: ImageConfig, encoder: EncoderConfig) -> PatchGrid:
    return PatchGrid(image.height // encoder.stride, image.width // encoder.stride)


def _blip(config: SourceConfig, source: SourceTensors) -> tuple[EncoderConfig, DecoderConfig, Weights]:
    vision, text = config.part("vision_config"), config.part("text_config")
    # BLIP's generate starts with [DEC] and ends with [SEP]; eos_token_id is ignored.
    ids = SpecialIds(text.integer("bos_token_id"), (text.integer("sep_token_id"),), text.integer("pad_token_id"))
    encoder = blip_encoder(vision)
    decoder = blip_config(text, encoder.hidden_size, ids)
    return encoder, decoder, blip_encoder_weights(source, encoder) | blip_weights(source, decoder)


def _encoder_decoder(
    config: SourceConfig, generation: dict[str, Any], source: SourceTensors
) -> tuple[EncoderConfig, DecoderConfig, Weights]:
    vision, text = config.part("encoder"), config.part("decoder")
    kind = text.text("model_type", "")
    if kind not in _DECODERS:
        raise CheckpointError(f"the decoder is {kind!r}; supported are {', '.join(_DECODERS)}")
    make_config, take_weights = _DECODERS[kind]
    encoder = vit_config(vision, qkv_bias=has_qkv_bias(source))
    decoder = make_config(text, encoder.hidden_size, special_ids(generation, config.values, text.values))
    weights = vit_weights(source, encoder) | take_weights(source, decoder)
    if decoder.image_projection:
        weights |= source.module("decoder.image_projection", "enc_to_dec_proj")
    return encoder, decoder, weights
