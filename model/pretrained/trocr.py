"""TrOCR's decoder (Li et al. 2023): BART's, with norms after the residuals and a position offset of two rows."""

from __future__ import annotations

from model.config import DecoderConfig
from model.pretrained.gpt2 import activation_name
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights

_POSITION_OFFSET = 2  # rows that BART keeps before the first position


def trocr_config(config: SourceConfig, encoder_hidden_size: int, ids: SpecialIds) -> DecoderConfig:
    """Return the decoder of a TrOCRConfig."""
    hidden_size = config.integer("d_model")
    is_learned = config.boolean("use_learned_position_embeddings", True)
    return DecoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=config.integer("decoder_layers"),
        num_heads=config.integer("decoder_attention_heads"),
        intermediate_size=config.integer("decoder_ffn_dim"),
        max_positions=config.integer("max_position_embeddings"),
        encoder_hidden_size=encoder_hidden_size,
        image_projection=encoder_hidden_size != hidden_size and not config.has("cross_attention_hidden_size"),
        layer_norm_eps=1e-5,  # a constant of the source's code: its config has no field for it
        pre_norm=False,
        activation=activation_name(config.text("activation_function")),
        position_embedding_type="learned" if is_learned else "sinusoidal",
        position_offset=_POSITION_OFFSET if is_learned else config.integer("pad_token_id") + 1,
        embedding_scale=hidden_size**0.5 if config.boolean("scale_embedding", False) else 1.0,
        embedding_norm=config.boolean("layernorm_embedding", True),
        final_norm=False,
        tie_word_embeddings=config.boolean("tie_word_embeddings", True),
        null_key=False,
        bos_token_id=ids.start,
        eos_token_id=ids.ends[0],
        more_eos_token_ids=ids.ends[1:],
        pad_token_id=ids.pad,
        suppress_tokens=(),  # as in `generate`: none
    )


def trocr_weights(tensors: SourceTensors, config: DecoderConfig) -> Weights:
    """Return the decoder's weights."""
    theirs = "decoder.model.decoder."
    weights = {"decoder.token_embedding.weight": tensors.take(f"{theirs}embed_tokens.weight")}
    if config.position_embedding_type == "learned":
        weights["decoder.position_embedding.weight"] = tensors.take(f"{theirs}embed_positions.weight")
    if config.embedding_norm:
        weights |= tensors.module("decoder.embedding_norm", f"{theirs}layernorm_embedding")
    if not config.tie_word_embeddings:
        weights["decoder.head_weight"] = tensors.take("decoder.output_projection.weight")
    for index in range(config.num_layers):
        ours, layer = f"decoder.layers.{index}.", f"{theirs}layers.{index}."
        for attention, their_attention in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
            for name, part in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
                weights |= tensors.module(f"{ours}{attention}.{name}", f"{layer}{their_attention}.{part}")
        for name, part in (
            ("self_norm", "self_attn_layer_norm"),
            ("cross_norm", "encoder_attn_layer_norm"),
            ("mlp_norm", "final_layer_norm"),
            ("mlp.0", "fc1"),
            ("mlp.2", "fc2"),
        ):
            weights |= tensors.module(f"{ours}{name}", f"{layer}{part}")
    tensors.ignore(r"decoder\.output_projection\.weight", rf"{theirs}version", rf"{theirs}embed_positions\._float_tensor")
    return weights
