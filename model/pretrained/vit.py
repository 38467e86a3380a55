"""ViT and DeiT of Hugging Face's transformers as timm's VisionTransformer.

Two sets of names are read: those of files on the hub (`encoder.layer.0.attention.attention.query`) and those of transformers 5
in memory (`layers.0.attention.q_proj`). A distillation token becomes a register token after the class token.
"""

from __future__ import annotations

import torch

from model.config import EncoderConfig
from model.errors import CheckpointError
from model.pretrained.source_config import SourceConfig
from model.pretrained.tensors import SourceTensors, Weights

_OURS = "encoder.vit."


def vit_config(config: SourceConfig, *, qkv_bias: bool) -> EncoderConfig:
    """Return the encoder of a ViTConfig or DeiTConfig. Raises CheckpointError for any other model."""
    kind = config.text("model_type", "")
    if kind not in ("vit", "deit"):
        raise CheckpointError(f"the encoder is {kind!r}; supported are 'vit' and 'deit'")
    return transformer_config(config, num_register_tokens=int(kind == "deit"), qkv_bias=qkv_bias)


def transformer_config(config: SourceConfig, *, num_register_tokens: int, qkv_bias: bool) -> EncoderConfig:
    """Return the encoder of any vision config with transformers' field names."""
    if (activation := config.text("hidden_act")) != "gelu":
        raise CheckpointError(f"the encoder's activation is {activation!r}; timm's ViT has 'gelu'")
    hidden_size, intermediate_size = config.integer("hidden_size", minimum=1), config.integer("intermediate_size", minimum=1)
    patch_size = config.size("patch_size")
    if patch_size[0] != patch_size[1]:
        raise CheckpointError(f"the encoder's patch_size is {patch_size}; timm's ViT has square patches")
    ratio = intermediate_size / hidden_size
    if int(hidden_size * ratio) != intermediate_size:
        raise CheckpointError(
            f"the encoder's intermediate_size is {intermediate_size}, which timm's mlp_ratio cannot express for a hidden_size of "
            f"{hidden_size}; this encoder cannot be converted"
        )
    return EncoderConfig(
        hidden_size=hidden_size,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        mlp_ratio=ratio,
        patch_size=patch_size[0],
        class_token=True,
        num_register_tokens=num_register_tokens,
        layer_norm_eps=config.number("layer_norm_eps"),
        qkv_bias=qkv_bias,
    )


def has_qkv_bias(tensors: SourceTensors) -> bool:
    """Return whether the encoder's queries have a bias, by its tensors: the config may differ."""
    return tensors.has(_query(tensors, "encoder.", 0).replace("weight", "bias"))


def vit_weights(tensors: SourceTensors, config: EncoderConfig, prefix: str = "encoder.") -> Weights:
    """Return the encoder's weights."""
    weights = {
        f"{_OURS}cls_token": tensors.take(f"{prefix}embeddings.cls_token"),
        f"{_OURS}pos_embed": tensors.take(f"{prefix}embeddings.position_embeddings"),
    }
    if config.num_register_tokens:
        weights[f"{_OURS}reg_token"] = tensors.take(f"{prefix}embeddings.distillation_token")
    weights |= tensors.module(f"{_OURS}patch_embed.proj", f"{prefix}embeddings.patch_embeddings.projection")
    weights |= tensors.module(f"{_OURS}norm", f"{prefix}layernorm")
    for index in range(config.num_layers):
        ours, old, new = f"{_OURS}blocks.{index}.", f"{prefix}encoder.layer.{index}.", f"{prefix}layers.{index}."
        parts = [
            tensors.module(part, f"{old}attention.attention.{long}", f"{new}attention.{short}")
            for part, long, short in (("q", "query", "q_proj"), ("k", "key", "k_proj"), ("v", "value", "v_proj"))
        ]
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            weights[f"{ours}attn.qkv.{kind}"] = torch.cat(
                [part[f"{name}.{kind}"] for name, part in zip("qkv", parts, strict=True)]
            )
        for name, long, short in (
            ("attn.proj", "attention.output.dense", "attention.o_proj"),
            ("norm1", "layernorm_before", "layernorm_before"),
            ("norm2", "layernorm_after", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense", "mlp.fc1"),
            ("mlp.fc2", "output.dense", "mlp.fc2"),
        ):
            weights |= tensors.module(f"{ours}{name}", f"{old}{long}", f"{new}{short}")
    tensors.ignore(rf"{prefix}pooler\.dense\.(weight|bias)", rf"{prefix}embeddings\.mask_token")
    return weights


def _query(tensors: SourceTensors, prefix: str, index: int) -> str:
    return tensors.first(
        f"{prefix}encoder.layer.{index}.attention.attention.query.weight", f"{prefix}layers.{index}.attention.q_proj.weight"
    )
