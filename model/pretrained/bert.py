"""BERT, RoBERTa and XLM-RoBERTa with cross-attention, decoders of encoder-decoders; BLIP's decoder is BERT's, too.

RoBERTa's positions begin after the padding id, and padding itself has that id's position. Token types are always 0: their
embedding is added to the positions.
"""

from __future__ import annotations

from model.config import DecoderConfig
from model.errors import CheckpointError
from model.pretrained.gpt2 import activation_name
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights

_ATTENTIONS = (("self_attention", "attention", "self_norm"), ("cross_attention", "crossattention", "cross_norm"))


def bert_config(config: SourceConfig, encoder_hidden_size: int, ids: SpecialIds, *, image_projection: bool) -> DecoderConfig:
    """Return the decoder of a BertConfig, RobertaConfig, XLMRobertaConfig or BlipTextConfig."""
    kind = config.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise CheckpointError(f"the decoder's position_embedding_type is {kind!r}; supported is 'absolute'")
    is_roberta = "roberta" in config.text("model_type", "")
    offset = config.integer("pad_token_id") + 1 if is_roberta else 0
    return DecoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        intermediate_size=config.integer("intermediate_size"),
        max_positions=config.integer("max_position_embeddings") - offset,
        encoder_hidden_size=encoder_hidden_size,
        image_projection=image_projection,
        layer_norm_eps=config.number("layer_norm_eps"),
        pre_norm=False,
        activation=activation_name(config.text("hidden_act")),
        position_offset=offset,
        padding_position=not is_roberta,
        embedding_norm=True,
        final_norm=False,
        head_transform=True,
        head_bias=True,
        tie_word_embeddings=config.boolean("tie_word_embeddings", True),
        null_key=False,
        suppress_tokens=(),  # as in `generate`: none
        **ids.fields(),
    )


def bert_weights(tensors: SourceTensors, config: DecoderConfig, prefix: str) -> Weights:
    """Return the decoder's weights. `prefix` is what the names of its two parts, network and head, begin with."""
    theirs = f"{prefix}roberta." if tensors.has_any(f"{prefix}roberta.") else f"{prefix}bert."
    is_roberta = theirs.endswith("roberta.")
    head, dense, norm = (
        (f"{prefix}lm_head.", "dense", "layer_norm")
        if is_roberta
        else (f"{prefix}cls.predictions.", "transform.dense", "transform.LayerNorm")
    )
    positions = tensors.take(f"{theirs}embeddings.position_embeddings.weight")
    types = f"{theirs}embeddings.token_type_embeddings.weight"
    if tensors.has(types):  # BLIP's has none
        positions = positions + tensors.take(types)[0]
    weights = {
        "decoder.token_embedding.weight": tensors.take(f"{theirs}embeddings.word_embeddings.weight"),
        "decoder.position_embedding.weight": positions,
        "decoder.head_bias": tensors.take(f"{head}bias"),
    }
    if not config.tie_word_embeddings:
        weights["decoder.head_weight"] = tensors.take(f"{head}decoder.weight")
    weights |= tensors.module("decoder.embedding_norm", f"{theirs}embeddings.LayerNorm")
    weights |= tensors.module("decoder.head_transform.0", f"{head}{dense}")
    weights |= tensors.module("decoder.head_transform.2", f"{head}{norm}")
    for index in range(config.num_layers):
        ours, layer = f"decoder.layers.{index}.", f"{theirs}encoder.layer.{index}."
        for attention, their_attention, their_norm in _ATTENTIONS:
            for name in ("query", "key", "value"):
                weights |= tensors.module(f"{ours}{attention}.{name}", f"{layer}{their_attention}.self.{name}")
            weights |= tensors.module(f"{ours}{attention}.out", f"{layer}{their_attention}.output.dense")
            weights |= tensors.module(f"{ours}{their_norm}", f"{layer}{their_attention}.output.LayerNorm")
        weights |= tensors.module(f"{ours}mlp.0", f"{layer}intermediate.dense")
        weights |= tensors.module(f"{ours}mlp.2", f"{layer}output.dense")
        weights |= tensors.module(f"{ours}mlp_norm", f"{layer}output.LayerNorm")
    tensors.ignore(
        rf"{head}decoder\.(weight|bias)",  # copies of the embedding and the bias
        rf"{theirs}embeddings\.(position_ids|token_type_ids)",
        rf"{theirs}pooler\.dense\.(weight|bias)",
        rf"{prefix}cls\.seq_relationship\.(weight|bias)",  # of BERT's pre-training
    )
    return weights
