"""ViT, DeiT, DINOv2 and BEiT of Hugging Face's transformers as timm's VisionTransformer and Beit.

Two sets of names are read: those of files on the hub (`encoder.layer.0.attention.attention.query`) and those of transformers 5
in memory (`layers.0.attention.q_proj`). A distillation token becomes a register token after the class token.
"""

from __future__ import annotations

import dataclasses

import torch

from model.config import EncoderConfig
from model.errors import CheckpointError
from model.pretrained.source_config import SourceConfig
from model.pretrained.tensors import SourceTensors, Weights

_OURS = "encoder.vit."


def vit_config(config: SourceConfig, tensors: SourceTensors) -> EncoderConfig:
    """Return the encoder of a ViTConfig, DeiTConfig, Dinov2Config, Dinov2WithRegistersConfig or BeitConfig."""
    kind = config.text("model_type", "")
    if kind in ("dinov2", "dinov2_with_registers"):
        return _dinov2_config(config)
    if kind == "beit":
        return _beit_config(config)
    return transformer_config(config, num_register_tokens=int(kind == "deit"), qkv_bias=has_qkv_bias(tensors))


def _dinov2_config(config: SourceConfig) -> EncoderConfig:
    size, ratio, is_gated = config.integer("hidden_size"), config.number("mlp_ratio"), config.boolean("use_swiglu_ffn", False)
    if is_gated:  # two thirds of the size, rounded up to a multiple of 8, twice: the gate and the values
        ratio = 2 * ((int(int(size * ratio) * 2 / 3) + 7) // 8 * 8) / size
    values = config.values | {"intermediate_size": round(size * ratio)}
    registers = config.integer("num_register_tokens", 0)
    plain = transformer_config(
        SourceConfig(values, "encoder"), num_register_tokens=registers, qkv_bias=config.boolean("qkv_bias", True)
    )
    return dataclasses.replace(plain, layer_scale=True, swiglu=is_gated)


def _beit_config(config: SourceConfig) -> EncoderConfig:
    shared, own = config.boolean("use_shared_relative_position_bias", False), config.boolean("use_relative_position_bias", False)
    if shared and own:
        raise CheckpointError("this BEiT has shared position biases and those of each layer; supported is one of them")
    return dataclasses.replace(
        transformer_config(config, num_register_tokens=0, qkv_bias=True),
        architecture="beit",
        layer_scale=config.number("layer_scale_init_value", 0.1) > 0,
        absolute_positions=config.boolean("use_absolute_position_embeddings", False),
        relative_positions="shared" if shared else "layer" if own else "none",
        final_norm=not config.boolean("use_mean_pooling", True),  # else only the pooled token is normalized
    )


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


def vit_weights(tensors: SourceTensors, config: EncoderConfig, prefix: str = "encoder.") -> Weights:
    """Return the encoder's weights."""
    ours = "encoder.backbone." if config.architecture == "beit" else _OURS
    weights = {f"{ours}cls_token": tensors.take(f"{prefix}embeddings.cls_token")}
    if config.absolute_positions:
        weights[f"{ours}pos_embed"] = tensors.take(f"{prefix}embeddings.position_embeddings")
    if config.num_register_tokens:
        weights[f"{ours}reg_token"] = tensors.take(
            f"{prefix}embeddings.distillation_token", f"{prefix}embeddings.register_tokens"
        )
    weights |= tensors.module(f"{ours}patch_embed.proj", f"{prefix}embeddings.patch_embeddings.projection")
    if config.final_norm:
        weights |= tensors.module(f"{ours}norm", f"{prefix}layernorm")
    if config.relative_positions == "shared":
        weights[f"{ours}rel_pos_bias.relative_position_bias_table"] = tensors.take(
            f"{prefix}encoder.relative_position_bias.relative_position_bias_table",
            f"{prefix}shared_position_bias.relative_position_bias_table",
        )
    for index in range(config.num_layers):
        layers = (f"{prefix}encoder.layer.{index}.", f"{prefix}layers.{index}.")
        weights |= _block(tensors, config, f"{ours}blocks.{index}.", *layers)
    tensors.ignore(
        rf"{prefix}pooler\.(dense|layernorm)\.(weight|bias)",
        rf"{prefix}embeddings\.mask_token",
        rf"{prefix}.*relative_position_index",
    )
    return weights


def _block(tensors: SourceTensors, config: EncoderConfig, ours: str, old: str, new: str) -> Weights:
    """Return a block's weights; `old` and `new` begin its names in files and in memory."""

    def both(long: str, short: str) -> list[str]:
        return [f"{layer}{name}" for layer in (old, new) for name in dict.fromkeys((long, short))]

    weights: Weights = {}
    parts = [
        tensors.module(part, *both(f"attention.attention.{long}", f"attention.{part}_proj"))
        for part, long in (("q", "query"), ("k", "key"), ("v", "value"))
    ]
    weights[f"{ours}attn.qkv.weight"] = torch.cat([part[f"{name}.weight"] for name, part in zip("qkv", parts, strict=True)])
    if config.architecture == "beit":  # its keys have no bias
        weights |= {f"{ours}attn.q_bias": parts[0]["q.bias"], f"{ours}attn.v_bias": parts[2]["v.bias"]}
    elif config.qkv_bias:
        weights[f"{ours}attn.qkv.bias"] = torch.cat([part[f"{name}.bias"] for name, part in zip("qkv", parts, strict=True)])
    for name, long, short in (
        ("attn.proj", "attention.output.dense", "attention.o_proj"),
        ("norm1", "layernorm_before", "norm1"),
        ("norm2", "layernorm_after", "norm2"),
    ):
        weights |= tensors.module(f"{ours}{name}", *both(long, short))
    if config.swiglu:
        names = both("mlp.weights_in", "mlp.weights_in")
        if any(tensors.has(f"{name}.weight") for name in names):
            weights |= tensors.module(f"{ours}mlp.fc1", *names)
        else:
            gate = tensors.module("gate", *both("mlp.gate_proj", "mlp.gate_proj"))
            values = tensors.module("values", *both("mlp.up_proj", "mlp.up_proj"))
            for kind in ("weight", "bias"):
                weights[f"{ours}mlp.fc1.{kind}"] = torch.cat([gate[f"gate.{kind}"], values[f"values.{kind}"]])
        weights |= tensors.module(f"{ours}mlp.fc2", *both("mlp.weights_out", "mlp.down_proj"))
    else:
        weights |= tensors.module(f"{ours}mlp.fc1", *both("intermediate.dense", "mlp.fc1"))
        weights |= tensors.module(f"{ours}mlp.fc2", *both("output.dense", "mlp.fc2"))
    if config.layer_scale:
        scales = ("gamma_1", "gamma_2") if config.architecture == "beit" else ("ls1.gamma", "ls2.gamma")
        for number, name in enumerate(scales, start=1):
            weights[f"{ours}{name}"] = tensors.take(*both(f"lambda_{number}", f"layer_scale{number}.lambda1"))
    if config.relative_positions == "layer":
        table = "relative_position_bias.relative_position_bias_table"
        weights[f"{ours}attn.relative_position_bias_table"] = tensors.take(*both(f"attention.attention.{table}", table))
    return weights


def has_qkv_bias(tensors: SourceTensors) -> bool:
    """Return whether the encoder's queries have a bias, by its tensors: the config may differ."""
    query = tensors.first("encoder.encoder.layer.0.attention.attention.query.weight", "encoder.layers.0.attention.q_proj.weight")
    return tensors.has(query.replace("weight", "bias"))
