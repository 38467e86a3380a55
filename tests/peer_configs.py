"""Configurations of the tiny encoders and decoders that tests/peers.py combines."""

from __future__ import annotations

from typing import Any

from transformers import (
    BeitConfig,
    BertConfig,
    DeiTConfig,
    Dinov2Config,
    DonutSwinConfig,
    GPT2Config,
    MBartConfig,
    RobertaConfig,
    SwinConfig,
    Swinv2Config,
    TrOCRConfig,
    ViTConfig,
    XLMRobertaConfig,
)

MAX_POSITIONS, SIZE = 64, 16  # of a decoder; pixels per side


def encoder_config(kind: str, size: int, *, qkv_bias: bool) -> Any:
    """Return the config of a tiny encoder with 4 x 4 patches at the end."""
    shared = {"hidden_size": size, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIZE, "patch_size": 4}
    if kind == "beit":  # the published ones have biases of each layer, and no norm at the end
        return BeitConfig(**shared, intermediate_size=48, use_relative_position_bias=True, layer_scale_init_value=0.5)
    if kind == "beit-shared":  # pre-trained ones
        return BeitConfig(
            **shared, intermediate_size=48, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True,
            use_mean_pooling=False, use_mask_token=True,
        )  # fmt: skip
    if kind.startswith("dinov2"):
        return Dinov2Config(**shared, mlp_ratio=2, use_swiglu_ffn=kind == "dinov2-gated")
    if "swin" in kind:  # 8 x 8 patches, then 4 x 4, in windows that divide neither
        stages = {"embed_dim": size // 2, "depths": [2, 2], "num_heads": [2, 4], "image_size": SIZE, "patch_size": 2}
        if kind == "swinv2":
            return Swinv2Config(**stages, window_size=3, mlp_ratio=2.0, pretrained_window_sizes=[0, 2])
        return (DonutSwinConfig if kind == "donut-swin" else SwinConfig)(**stages, window_size=3, mlp_ratio=2.0)
    return (DeiTConfig if kind == "deit" else ViTConfig)(**shared, intermediate_size=48, qkv_bias=qkv_bias)


def decoder_config(kind: str, vocab_size: int, ids: tuple[int, int, int] | None) -> tuple[Any, tuple[int, int, int]]:
    """Return the config of a tiny decoder, and its usual ids of start, end and pad."""
    crossing = {"add_cross_attention": True, "is_decoder": True}
    if kind == "gpt2":
        shape = {"vocab_size": vocab_size, "n_positions": MAX_POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 4}
        start, end, _ = ids or (5, 5, 5)
        return GPT2Config(**shape, **crossing, bos_token_id=start, eos_token_id=end), (5, 5, 5)
    if kind.startswith("trocr"):
        first_stage = {  # options of TrOCR's first stage and of its small models only
            "activation_function": "relu",
            "scale_embedding": True,
            "use_learned_position_embeddings": False,
            "layernorm_embedding": False,
            "tie_word_embeddings": False,
        }
        decoder = TrOCRConfig(
            vocab_size=vocab_size,
            d_model=40,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=64,
            max_position_embeddings=MAX_POSITIONS,
            cross_attention_hidden_size=32,
            **crossing,
            **(first_stage if kind == "trocr_stage1" else {}),
        )
        return decoder, (2, 2, 1)
    if kind == "mbart":
        decoder = MBartConfig(
            vocab_size=vocab_size,
            d_model=32,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=64,
            max_position_embeddings=MAX_POSITIONS,
            scale_embedding=True,
            **crossing,
        )
        return decoder, (3, 2, 1)
    kinds = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 24 if kind == "bert" else 32,  # another size than the encoder's: a projection between them
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": MAX_POSITIONS,
    }
    usual = (3, 4, 0) if kind == "bert" else (0, 2, 1)
    return kinds[kind](**shape, **crossing, pad_token_id=(ids or usual)[2]), usual
