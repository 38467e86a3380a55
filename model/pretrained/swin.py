"""Swin, Swin v2 and Donut's Swin of Hugging Face's transformers as timm's SwinTransformer and SwinTransformerV2.

Two sets of names are read: those of files on the hub and those of transformers 5 in memory. A merging of patches is at the end
of a stage there, and at the beginning of the next one in timm. Donut's encoder has no norm at its end.
"""

from __future__ import annotations

import torch

from model.config import EncoderConfig
from model.errors import CheckpointError
from model.pretrained.source_config import SourceConfig
from model.pretrained.tensors import SourceTensors, Weights

_OURS = "encoder.backbone."


def swin_config(config: SourceConfig) -> EncoderConfig:
    """Return the encoder of a SwinConfig, Swinv2Config or DonutSwinConfig."""
    kind = config.text("model_type", "")
    if (activation := config.text("hidden_act")) != "gelu":
        raise CheckpointError(f"the encoder's activation is {activation!r}; timm's Swin has 'gelu'")
    if config.boolean("use_absolute_embeddings", False):
        raise CheckpointError(
            "this Swin adds absolute position embeddings, which timm's does not; this encoder cannot be converted"
        )
    depths, heads = config.integers("depths"), config.integers("num_heads")
    first = config.integer("embed_dim", minimum=1)
    sizes = tuple(first * 2**stage for stage in range(len(depths)))
    patch_size = config.size("patch_size")
    if patch_size[0] != patch_size[1]:
        raise CheckpointError(f"the encoder's patch_size is {patch_size}; timm's Swin has square patches")
    windows = config.integers("pretrained_window_sizes") if kind == "swinv2" and config.has("pretrained_window_sizes") else ()
    return EncoderConfig(
        architecture="swinv2" if kind == "swinv2" else "swin",
        hidden_size=sizes[-1],
        num_layers=sum(depths),
        num_heads=heads[-1],
        mlp_ratio=config.number("mlp_ratio"),
        patch_size=patch_size[0],
        class_token=False,
        layer_norm_eps=config.number("layer_norm_eps"),
        qkv_bias=config.boolean("qkv_bias", True),
        stage_depths=depths,
        stage_heads=heads,
        stage_sizes=sizes,
        window_size=config.integer("window_size", minimum=1),
        pretrained_window_sizes=windows,
        final_norm=kind != "donut-swin",
    )


def swin_weights(tensors: SourceTensors, config: EncoderConfig) -> Weights:
    """Return the encoder's weights."""
    theirs = "encoder."
    weights = tensors.module(f"{_OURS}patch_embed.proj", f"{theirs}embeddings.patch_embeddings.projection")
    weights |= tensors.module(f"{_OURS}patch_embed.norm", f"{theirs}embeddings.norm")
    if config.final_norm:
        weights |= tensors.module(f"{_OURS}norm", f"{theirs}layernorm")
    for stage, depth in enumerate(config.stage_depths):
        layer = f"{theirs}encoder.layers.{stage}."
        if stage + 1 < len(config.stage_depths):
            for part in ("norm", "reduction"):
                weights |= tensors.module(f"{_OURS}layers.{stage + 1}.downsample.{part}", f"{layer}downsample.{part}")
        for index in range(depth):
            weights |= _block(tensors, config, f"{_OURS}layers.{stage}.blocks.{index}.", f"{layer}blocks.{index}.")
    tensors.ignore(rf"{theirs}.*relative_position_index", rf"{theirs}.*relative_coords_table", rf"{theirs}embeddings\.mask_token")
    return weights


def _block(tensors: SourceTensors, config: EncoderConfig, ours: str, theirs: str) -> Weights:
    is_v2 = config.architecture == "swinv2"
    parts = [
        tensors.module(part, f"{theirs}attention.self.{long}", f"{theirs}attention.{part}_proj")
        for part, long in (("q", "query"), ("k", "key"), ("v", "value"))
    ]
    weights = {f"{ours}attn.qkv.weight": torch.cat([part[f"{name}.weight"] for name, part in zip("qkv", parts, strict=True)])}
    if config.qkv_bias and is_v2:  # its keys have no bias
        weights |= {f"{ours}attn.q_bias": parts[0]["q.bias"], f"{ours}attn.v_bias": parts[2]["v.bias"]}
    elif config.qkv_bias:
        weights[f"{ours}attn.qkv.bias"] = torch.cat([part[f"{name}.bias"] for name, part in zip("qkv", parts, strict=True)])
    for name, *both in (
        ("attn.proj", "attention.output.dense", "attention.o_proj"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("mlp.fc1", "intermediate.dense", "mlp.fc1"),
        ("mlp.fc2", "output.dense", "mlp.fc2"),
    ):
        weights |= tensors.module(f"{ours}{name}", *(f"{theirs}{other}" for other in both))
    if is_v2:
        weights[f"{ours}attn.logit_scale"] = tensors.take(f"{theirs}attention.self.logit_scale")
        for number in (0, 2):
            name = f"{theirs}attention.self.continuous_position_bias_mlp.{number}"
            weights |= tensors.module(f"{ours}attn.cpb_mlp.{number}", name)
    else:
        table = "relative_position_bias_table"
        weights[f"{ours}attn.{table}"] = tensors.take(
            f"{theirs}attention.self.{table}", f"{theirs}attention.relative_position_bias.{table}"
        )
    return weights
