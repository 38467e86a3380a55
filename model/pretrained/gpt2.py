"""GPT-2 with cross-attention, the decoder of ViT-GPT2. The weights of its Conv1D layers are (in, out); they are transposed."""

from __future__ import annotations

from model.config import Activation, DecoderConfig
from model.errors import CheckpointError
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


def gpt2_config(config: SourceConfig, encoder_hidden_size: int, ids: SpecialIds, *, image_projection: bool) -> DecoderConfig:
    """Return the decoder of a GPT2Config. Raises CheckpointError for attention that is scaled in another way."""
    if not config.boolean("scale_attn_weights", True) or config.boolean("scale_attn_by_inverse_layer_idx", False):
        raise CheckpointError("this GPT-2 scales its attention by layer or not at all; supported is 1 / sqrt(head size)")
    hidden_size = config.integer("n_embd")
    return DecoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=config.integer("n_layer"),
        num_heads=config.integer("n_head"),
        intermediate_size=config.integer("n_inner", 4 * hidden_size),
        max_positions=config.integer("n_positions"),
        encoder_hidden_size=encoder_hidden_size,
        image_projection=image_projection,
        layer_norm_eps=config.number("layer_norm_epsilon"),
        activation=activation_name(config.text("activation_function")),
        tie_word_embeddings=config.boolean("tie_word_embeddings", True),
        null_key=False,
        suppress_tokens=(),  # as in `generate`: none
        **ids.fields(),
    )


def gpt2_weights(tensors: SourceTensors, config: DecoderConfig) -> Weights:
    """Return the decoder's weights."""
    theirs = "decoder.transformer."
    weights = {
        "decoder.token_embedding.weight": tensors.take(f"{theirs}wte.weight"),
        "decoder.position_embedding.weight": tensors.take(f"{theirs}wpe.weight"),
    }
    weights |= tensors.module("decoder.norm", f"{theirs}ln_f")
    if not config.tie_word_embeddings:
        weights["decoder.head_weight"] = tensors.take("decoder.lm_head.weight")
    for index in range(config.num_layers):
        ours, layer = f"decoder.layers.{index}.", f"{theirs}h.{index}."
        attention, cross = f"{ours}self_attention.", f"{ours}cross_attention."
        weights |= tensors.split([f"{attention}query", f"{attention}key", f"{attention}value"], f"{layer}attn.c_attn")
        weights |= tensors.module(f"{attention}out", f"{layer}attn.c_proj", transposed=True)
        weights |= tensors.module(f"{cross}query", f"{layer}crossattention.q_attn", transposed=True)
        weights |= tensors.split([f"{cross}key", f"{cross}value"], f"{layer}crossattention.c_attn")
        weights |= tensors.module(f"{cross}out", f"{layer}crossattention.c_proj", transposed=True)
        weights |= tensors.module(f"{ours}mlp.0", f"{layer}mlp.c_fc", transposed=True)
        weights |= tensors.module(f"{ours}mlp.2", f"{layer}mlp.c_proj", transposed=True)
        for name, norm in (("self_norm", "ln_1"), ("cross_norm", "ln_cross_attn"), ("mlp_norm", "ln_2")):
            weights |= tensors.module(f"{ours}{name}", f"{layer}{norm}")
    # Causal masks, which old files contain as tensors, and a tied head, which equals the token embedding.
    tensors.ignore(rf"{theirs}h\.\d+\.(attn|crossattention)\.(bias|masked_bias)", r"decoder\.lm_head\.weight")
    return weights


def activation_name(name: str) -> Activation:
    """Return our name of an activation. Raises CheckpointError if it is unknown."""
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"the decoder's activation is {name!r}; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
