"""BLIP captioning (Li et al. 2022): a ViT with fused qkv like timm's, and BERT's decoder with norms after the residuals.

Two layouts are read: that of Hugging Face, and the authors' .pth, whose encoder has timm's names and another epsilon.
"""

from __future__ import annotations

from model.config import DecoderConfig, EncoderConfig
from model.errors import CheckpointError
from model.pretrained.bert import bert_weights
from model.pretrained.source_config import SourceConfig
from model.pretrained.tensors import SourceTensors, Weights
from model.pretrained.vit import transformer_config

_OURS = "encoder.vit."


def blip_encoder(config: SourceConfig) -> EncoderConfig:
    """Return the encoder of a BlipVisionConfig."""
    return transformer_config(config, num_register_tokens=0, qkv_bias=True)


def blip_encoder_weights(tensors: SourceTensors, config: EncoderConfig) -> Weights:
    """Return the encoder's weights, in Hugging Face's layout or the authors'."""
    if tensors.has("visual_encoder.cls_token"):
        return _authors_encoder(tensors, config)
    theirs = "vision_model."
    weights = {
        f"{_OURS}cls_token": tensors.take(f"{theirs}embeddings.class_embedding"),
        f"{_OURS}pos_embed": tensors.take(f"{theirs}embeddings.position_embedding"),
    }
    weights |= tensors.module(f"{_OURS}patch_embed.proj", f"{theirs}embeddings.patch_embedding")
    weights |= tensors.module(f"{_OURS}norm", f"{theirs}post_layernorm")
    for index in range(config.num_layers):
        for name, part in (
            ("norm1", "layer_norm1"),
            ("attn.qkv", "self_attn.qkv"),
            ("attn.proj", "self_attn.projection"),
            ("norm2", "layer_norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            weights |= tensors.module(f"{_OURS}blocks.{index}.{name}", f"{theirs}encoder.layers.{index}.{part}")
    return weights


def blip_weights(tensors: SourceTensors, config: DecoderConfig) -> Weights:
    """Return the decoder's weights; both layouts have the same names."""
    weights = bert_weights(tensors, config, "text_decoder.")
    tensors.ignore(r"vision_model\.embeddings\.position_ids")
    if tensors.has("itm_head.weight"):
        _ignore_pretraining(tensors)
    elif tensors.has_any("text_encoder."):
        raise CheckpointError(
            "the source has a text_encoder beside its text_decoder: it was trained for question answering; expected is one for "
            "image captioning: use that"
        )
    return weights


def _ignore_pretraining(tensors: SourceTensors) -> None:
    """Ignore the other networks of the authors' pre-trained .pth. One with a text encoder alone answers questions."""
    tensors.ignore(
        r"text_encoder\..*",
        r"(visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m)\..*",
        r"(vision_proj|text_proj|itm_head)\.(weight|bias)",
        r"(image_queue|text_queue|queue_ptr|temp)",
    )


def _authors_encoder(tensors: SourceTensors, config: EncoderConfig) -> Weights:
    theirs = "visual_encoder."
    weights = {f"{_OURS}{name}": tensors.take(f"{theirs}{name}") for name in ("cls_token", "pos_embed")}
    for name in ("patch_embed.proj", "norm"):
        weights |= tensors.module(f"{_OURS}{name}", f"{theirs}{name}")
    for index in range(config.num_layers):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            weights |= tensors.module(f"{_OURS}blocks.{index}.{part}", f"{theirs}blocks.{index}.{part}")
    return weights
