"""The family of a source, and its config and tensors in our layout."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from model.config import DecoderConfig, EncoderConfig, ImageConfig, PromptEncoderConfig
from model.errors import CheckpointError, ConfigError
from model.geometry import PatchGrid
from model.pretrained.architectures import family_of
from model.pretrained.bart import bart_config, bart_weights
from model.pretrained.bert import bert_config, bert_weights
from model.pretrained.blip import blip_encoder, blip_encoder_weights, blip_weights
from model.pretrained.florence import florence_decoder, florence_encoder, florence_prompt_encoder, florence_weights
from model.pretrained.gpt2 import gpt2_config, gpt2_weights
from model.pretrained.positions import resized_positions
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds, special_ids
from model.pretrained.swin import swin_config, swin_weights
from model.pretrained.tensors import SourceTensors, Weights
from model.pretrained.vit import vit_config, vit_weights

VIT_ENCODERS = ("vit", "deit", "beit", "dinov2", "dinov2_with_registers")
SWIN_ENCODERS = ("swin", "swinv2", "donut-swin")

# Heads of published networks by hidden size. Another number of heads changes no tensor's shape, but every caption.
_HEADS = {192: (3,), 256: (4, 8), 384: (6,), 512: (8,), 768: (12,), 1024: (16,), 1280: (16, 20), 1600: (25,)}


class ConvertedNetwork(NamedTuple):
    """A source's parts in our layout; the weights lack `no_image`, which no source has."""

    encoder: EncoderConfig
    decoder: DecoderConfig
    prompt_encoder: PromptEncoderConfig | None
    weights: Weights


def convert_network(
    config: dict[str, Any],
    generation: dict[str, Any],
    tensors: dict[str, Tensor],
    image: ImageConfig | None = None,
    *,
    unusual_heads: bool = False,
) -> ConvertedNetwork:
    """Return the parts and weights, with our names, of a source's config.json, generation_config.json and tensors.

    Every number is read from the source; nothing is assumed. `image` may have another size than the source's: position
    embeddings are resized. Raises CheckpointError that names an unknown family, field or tensor, or a number of heads that no
    published network of that hidden size has, unless `unusual_heads`.
    """
    source, fields = SourceTensors(tensors), SourceConfig(config)
    try:
        family = family_of(config)
        image = image or source_image(config)
        if family == "florence2":
            converted = _florence(fields, generation, source, image)
        else:
            convert = _blip if family == "blip" else _encoder_decoder
            converted = convert(fields, generation, source)
            _resize_positions(converted.weights, converted.encoder, source_image(config), image)
    except ConfigError as error:
        raise CheckpointError(f"the source's config.json cannot be used: {error}; copy it again from its source") from error
    source.finish()
    for name, part in (("encoder", converted.encoder), ("decoder", converted.decoder)):
        heads, size = part.num_heads, part.hidden_size
        if not unusual_heads and not converted.encoder.has_stages and heads not in _HEADS.get(size, (heads,)):
            usual = " or ".join(map(str, _HEADS[size]))
            raise CheckpointError(
                f"the {name} has {heads} heads for a hidden size of {size}; published ones have {usual}: the config was changed, "
                "or use --unusual-heads if it was trained so"
            )
    return converted


def source_image(config: dict[str, Any]) -> ImageConfig:
    """Return the image size of a source's encoder; mean and std are in its preprocessor_config.json.

    Raises CheckpointError for Florence-2, whose encoder has none.
    """
    family = family_of(config)
    if family == "florence2":
        raise CheckpointError("Florence-2 has no image size of its own; give that of its preprocessor_config.json")
    height, width = SourceConfig(config).part("vision_config" if family == "blip" else "encoder").size("image_size")
    return ImageConfig(height=height, width=width)


def _resize_positions(weights: Weights, encoder: EncoderConfig, old: ImageConfig, new: ImageConfig) -> None:
    """Resize position embeddings to another image size. Raises CheckpointError for an encoder that cannot have it."""
    old_grid, new_grid = _grid(old, encoder), _grid(new, encoder)
    if old_grid == new_grid:
        return
    if encoder.relative_positions != "none" or (encoder.has_stages and not _windows_fit(encoder, old, new)):
        raise CheckpointError(
            f"this {encoder.architecture} encoder was trained with images of {old.height} x {old.width}, its preprocessing gives "
            f"{new.height} x {new.width}: windows or position biases differ; set the encoder's image_size in "
            "preprocessor_config.json"
        )
    name = "encoder.backbone.pos_embed" if encoder.architecture == "beit" else "encoder.vit.pos_embed"
    if name in weights:
        weights[name] = resized_positions(
            weights[name], encoder.num_prefix_tokens, old_grid, new_grid, in_float32=encoder.layer_scale
        )


def _windows_fit(encoder: EncoderConfig, *images: ImageConfig) -> bool:
    """Return whether windows and shifts are the same at every size: they are smaller where a stage is no larger than a window."""
    sides = [
        side // (encoder.patch_size * 2**stage)
        for image in images
        for stage in range(len(encoder.stage_depths))
        for side in (image.height, image.width)
    ]
    return encoder.architecture == "swin" and min(sides) > encoder.window_size


def _grid(image: ImageConfig, encoder: EncoderConfig) -> PatchGrid:
    return PatchGrid(image.height // encoder.stride, image.width // encoder.stride)


def _blip(config: SourceConfig, generation: dict[str, Any], source: SourceTensors) -> ConvertedNetwork:
    vision, text = config.part("vision_config"), config.part("text_config")
    # BLIP's generate starts with [DEC] and ends with [SEP]; eos_token_id is ignored.
    ids = SpecialIds(text.integer("bos_token_id"), (text.integer("sep_token_id"),), text.integer("pad_token_id"))
    encoder = blip_encoder(vision)
    decoder = bert_config(text, encoder.hidden_size, ids, image_projection=False)
    weights = blip_encoder_weights(source, encoder) | blip_weights(source, decoder)
    return ConvertedNetwork(encoder, decoder, None, weights)


def _florence(config: SourceConfig, generation: dict[str, Any], source: SourceTensors, image: ImageConfig) -> ConvertedNetwork:
    encoder = florence_encoder(config)
    ids = special_ids(generation, config.part("text_config").values, config.values)
    decoder, prompt = florence_decoder(config, encoder, ids), florence_prompt_encoder(config)
    return ConvertedNetwork(encoder, decoder, prompt, florence_weights(source, encoder, decoder, prompt, image))


def _encoder_decoder(config: SourceConfig, generation: dict[str, Any], source: SourceTensors) -> ConvertedNetwork:
    vision, text = config.part("encoder"), config.part("decoder")
    encoder_kind, kind = vision.text("model_type", ""), text.text("model_type", "")
    if encoder_kind not in (*VIT_ENCODERS, *SWIN_ENCODERS):
        raise CheckpointError(f"the encoder is {encoder_kind!r}; supported are {', '.join((*VIT_ENCODERS, *SWIN_ENCODERS))}")
    if kind not in _DECODERS:
        raise CheckpointError(f"the decoder is {kind!r}; supported are {', '.join(_DECODERS)}")
    make_config, take_weights = _DECODERS[kind]
    is_windowed = encoder_kind in SWIN_ENCODERS
    encoder = swin_config(vision) if is_windowed else vit_config(vision, source)
    width = text.integer("n_embd" if kind == "gpt2" else "d_model" if kind in ("trocr", "mbart") else "hidden_size")
    projected = encoder.hidden_size != width and not text.has("cross_attention_hidden_size")
    ids = special_ids(generation, config.values, text.values)
    decoder = make_config(text, encoder.hidden_size, ids, image_projection=projected)
    weights = swin_weights(source, encoder) if is_windowed else vit_weights(source, encoder)
    weights |= take_weights(source, decoder)
    if decoder.image_projection:
        weights |= source.module("decoder.image_projection", "enc_to_dec_proj")
    return ConvertedNetwork(encoder, decoder, None, weights)


def _bart_weights(source: SourceTensors, decoder: DecoderConfig) -> Weights:
    theirs = "decoder.model.decoder."
    heads = ("decoder.output_projection.weight", "decoder.lm_head.weight")
    return bart_weights(source, decoder, theirs, f"{theirs}embed_tokens.weight", heads)


def _bert_weights(source: SourceTensors, decoder: DecoderConfig) -> Weights:
    return bert_weights(source, decoder, "decoder.")


_DECODERS = {
    "gpt2": (gpt2_config, gpt2_weights),
    "bert": (bert_config, _bert_weights),
    "roberta": (bert_config, _bert_weights),
    "xlm-roberta": (bert_config, _bert_weights),
    "trocr": (bart_config, _bart_weights),
    "mbart": (bart_config, _bart_weights),
}
