"""BART's decoder in its variants: TrOCR's (Li et al. 2023), mBART's (Liu et al. 2020), and Florence-2's, which is BART's own.

All have a position offset of two rows. mBART's norms are before the layers and there is one at the end.
"""

from __future__ import annotations

from model.config import DecoderConfig
from model.pretrained.gpt2 import activation_name
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights

POSITION_OFFSET = 2  # rows that BART keeps before the first position
EPSILON = 1e-5  # a constant of the source's code: its config has no field for it


def bart_config(config: SourceConfig, encoder_hidden_size: int, ids: SpecialIds, *, image_projection: bool) -> DecoderConfig:
    """Return the decoder of a TrOCRConfig, MBartConfig or BartConfig."""
    hidden_size, is_mbart = config.integer("d_model"), config.text("model_type", "") == "mbart"
    is_learned = config.boolean("use_learned_position_embeddings", True)
    return DecoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=config.integer("decoder_layers"),
        num_heads=config.integer("decoder_attention_heads"),
        intermediate_size=config.integer("decoder_ffn_dim"),
        max_positions=config.integer("max_position_embeddings"),
        encoder_hidden_size=encoder_hidden_size,
        image_projection=image_projection,
        layer_norm_eps=EPSILON,
        pre_norm=is_mbart,
        activation=activation_name(config.text("activation_function")),
        position_embedding_type="learned" if is_learned else "sinusoidal",
        position_offset=POSITION_OFFSET if is_learned else config.integer("pad_token_id") + 1,
        embedding_scale=hidden_size**0.5 if config.boolean("scale_embedding", False) else 1.0,
        embedding_norm=config.boolean("layernorm_embedding", True),
        final_norm=is_mbart,
        tie_word_embeddings=config.boolean("tie_word_embeddings", True),
        null_key=False,
        suppress_tokens=(),  # as in `generate`: none
        **ids.fields(),
    )


def bart_weights(tensors: SourceTensors, config: DecoderConfig, theirs: str, embeddings: str, heads: tuple[str, ...]) -> Weights:
    """Return the decoder's weights. `theirs` is what their names begin with, `embeddings` and `heads` are whole names."""
    weights = {"decoder.token_embedding.weight": tensors.take(embeddings)}
    if config.position_embedding_type == "learned":
        weights["decoder.position_embedding.weight"] = tensors.take(f"{theirs}embed_positions.weight")
    if config.embedding_norm:
        weights |= tensors.module("decoder.embedding_norm", f"{theirs}layernorm_embedding")
    if config.final_norm:
        weights |= tensors.module("decoder.norm", f"{theirs}layer_norm")
    if not config.tie_word_embeddings:
        weights["decoder.head_weight"] = tensors.take(*heads)
    for index in range(config.num_layers):
        ours, layer = f"decoder.layers.{index}.", f"{theirs}layers.{index}."
        for attention, their_attention in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
            weights |= attention_weights(tensors, f"{ours}{attention}.", f"{layer}{their_attention}.")
        for name, part in (
            ("self_norm", "self_attn_layer_norm"),
            ("cross_norm", "encoder_attn_layer_norm"),
            ("mlp_norm", "final_layer_norm"),
            ("mlp.0", "fc1"),
            ("mlp.2", "fc2"),
        ):
            weights |= tensors.module(f"{ours}{name}", f"{layer}{part}")
    tensors.ignore(rf"{theirs}version", rf"{theirs}embed_positions\._float_tensor")
    tensors.ignore_names(*heads)  # a tied head equals the embedding
    return weights


def attention_weights(tensors: SourceTensors, ours: str, theirs: str) -> Weights:
    """Return the four projections of an attention."""
    weights: Weights = {}
    for name, part in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        weights |= tensors.module(f"{ours}{name}", f"{theirs}{part}")
    return weights
