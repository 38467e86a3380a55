"""BLIP captioning (Li et al. 2022): a ViT with fused qkv like timm's, and BERT's decoder with norms after the residuals.

Two layouts are read: that of Hugging Face, and the authors' .pth, whose encoder has timm's names and another epsilon.
"""

from __future__ import annotations

from model.config import DecoderConfig, EncoderConfig
from model.errors import CheckpointError
from model.pretrained.gpt2 import activation_name
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights
from model.pretrained.vit import transformer_config

_OURS = "encoder.vit."
_ATTENTIONS = (("self_attention", "attention", "self_norm"), ("cross_attention", "crossattention", "cross_norm"))


def blip_encoder(config: SourceConfig) -> EncoderConfig:
    """Return the encoder of a BlipVisionConfig."""
    return transformer_config(config, num_register_tokens=0, qkv_bias=True)


def blip_config(config: SourceConfig, encoder_hidden_size: int, ids: SpecialIds) -> DecoderConfig:
    """Return the decoder of a BlipTextConfig."""
    return DecoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        intermediate_size=config.integer("intermediate_size"),
        max_positions=config.integer("max_position_embeddings"),
        encoder_hidden_size=encoder_hidden_size,
        layer_norm_eps=config.number("layer_norm_eps"),
        pre_norm=False,
        activation=activation_name(config.text("hidden_act")),
        embedding_norm=True,
        final_norm=False,
        head_transform=True,
        head_bias=True,
        tie_word_embeddings=config.boolean("tie_word_embeddings", True),
        null_key=False,
        bos_token_id=ids.start,
        eos_token_id=ids.ends[0],
        more_eos_token_ids=ids.ends[1:],
        pad_token_id=ids.pad,
        suppress_tokens=(),  # as in `generate`: none
    )


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
    theirs = "text_decoder.bert."
    weights = {
        "decoder.token_embedding.weight": tensors.take(f"{theirs}embeddings.word_embeddings.weight"),
        "decoder.position_embedding.weight": tensors.take(f"{theirs}embeddings.position_embeddings.weight"),
        "decoder.head_bias": tensors.take("text_decoder.cls.predictions.bias"),
    }
    if not config.tie_word_embeddings:
        weights["decoder.head_weight"] = tensors.take("text_decoder.cls.predictions.decoder.weight")
    weights |= tensors.module("decoder.embedding_norm", f"{theirs}embeddings.LayerNorm")
    weights |= tensors.module("decoder.head_transform.0", "text_decoder.cls.predictions.transform.dense")
    weights |= tensors.module("decoder.head_transform.2", "text_decoder.cls.predictions.transform.LayerNorm")
    for index in range(config.num_layers):
        ours, layer = f"decoder.layers.{index}.", f"{theirs}encoder.layer.{index}."
        for attention, their_attention, norm in _ATTENTIONS:
            for name in ("query", "key", "value"):
                weights |= tensors.module(f"{ours}{attention}.{name}", f"{layer}{their_attention}.self.{name}")
            weights |= tensors.module(f"{ours}{attention}.out", f"{layer}{their_attention}.output.dense")
            weights |= tensors.module(f"{ours}{norm}", f"{layer}{their_attention}.output.LayerNorm")
        weights |= tensors.module(f"{ours}mlp.0", f"{layer}intermediate.dense")
        weights |= tensors.module(f"{ours}mlp.2", f"{layer}output.dense")
        weights |= tensors.module(f"{ours}mlp_norm", f"{layer}output.LayerNorm")
    tensors.ignore(
        r"text_decoder\.cls\.predictions\.decoder\.(weight|bias)",  # copies of the embedding and the bias
        rf"{theirs}embeddings\.position_ids",
        r"vision_model\.embeddings\.position_ids",
    )
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
