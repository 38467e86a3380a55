"""The image encoder: timm's VisionTransformer over patches or over a convolutional stem. Knows pixels and patches, not text.

Shapes: B images, S image tokens (prefix + patches), P patches, C hidden size, F stem channels, H heads, K head size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import SwiGLUPacked
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.attention import attention_weights
from model.config import EncoderConfig, ImageConfig
from model.detector import Detector, center_patches
from model.errors import ConfigError
from model.geometry import PatchGrid


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Encoder output: tokens (B, S, C), S = prefix + patches; patch (r, c) is token num_prefix_tokens + r * columns + c."""

    tokens: Tensor
    grid: PatchGrid
    num_prefix_tokens: int

    def __post_init__(self) -> None:
        expected = self.num_prefix_tokens + self.grid.num_patches
        assert self.tokens.size(1) == expected, f"{self.tokens.size(1)} image tokens; prefix + patches is {expected}"

    @property
    def num_images(self) -> int:
        return self.tokens.size(0)

    def select(self, images: Sequence[int]) -> ImageFeatures:
        return ImageFeatures(self.tokens[list(images)], self.grid, self.num_prefix_tokens)

    @classmethod
    def concat(cls, features: Sequence[ImageFeatures]) -> ImageFeatures:
        """Return the images of all features, which are of one encoder, in order."""
        first = features[0]
        if len(features) == 1:
            return first
        return cls(torch.cat([part.tokens for part in features]), first.grid, first.num_prefix_tokens)


class ImageEncoder(nn.Module, ABC):
    """Pixels to image tokens, in two halves: `stem` can be frozen and its output cached, `finish` is the rest."""

    config: EncoderConfig
    grid: PatchGrid
    gradient_checkpointing: bool  # in training: activations inside a block are computed again in the backward pass

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def blocks(self) -> tuple[nn.Module, ...]:
        """The transformer blocks, first to last."""

    def stem(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> the input of `finish`: the stem's feature maps, or the pixels if there is no stem."""
        return (pixels,)

    @abstractmethod
    def finish(self, maps: tuple[Tensor, ...]) -> ImageFeatures:
        """Output of `stem` -> ImageFeatures of tokens (B, S, C)."""

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """pixels (B, 3, height, width) -> ImageFeatures of tokens (B, S, C)."""
        return self.finish(self.stem(pixels))


class ConvolutionalStem(nn.Module):
    """Feature maps of a timm backbone at one or more strides and, with a detector, its class map.

    They are concatenated on the finest grid: (B, F, rows, columns).
    """

    def __init__(
        self, name: str, strides: tuple[int, ...], *, detector: str = "", centered: bool = False, pretrained: bool = False
    ) -> None:
        super().__init__()
        try:
            with torch.device("meta"):  # only to read its strides: no weights are allocated
                available = timm.create_model(name, features_only=True).feature_info.reduction()
        except RuntimeError as error:
            raise ConfigError(f"stem is {name!r}; it must be a convolutional backbone of timm.list_models()") from error
        if missing := [stride for stride in strides if stride not in available]:
            raise ConfigError(f"stem {name!r} has no feature map at strides {missing}; it has {available}")
        indices = tuple(available.index(stride) for stride in strides)
        self.backbone = timm.create_model(name, features_only=True, out_indices=indices, pretrained=pretrained)
        if centered:
            center_patches(self.backbone)
        self.detector = Detector(detector) if detector else None

    def feature_maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> one map (B, F, rows, columns) per stride, finest first, then the class map."""
        maps = tuple(self.backbone(pixels))
        return maps if self.detector is None else (*maps, self.detector(pixels, maps[0].shape[-2:]))

    def join(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Upsample the coarser maps to the finest grid and concatenate: (B, sum of F, rows, columns)."""
        size = maps[0].shape[-2:]
        return torch.cat([part if part.shape[-2:] == size else functional.interpolate(part, size=size, mode="bilinear")
                          for part in maps], dim=1)  # fmt: skip

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, height, width) -> (B, F, rows, columns)."""
        return self.join(self.feature_maps(pixels))


class NormedHybridEmbed(HybridEmbed):  # type: ignore[misc]
    """timm's HybridEmbed with a layer norm after its projection, so that position embeddings have the same scale."""

    def __init__(self, *arguments: Any, embed_dim: int, **options: Any) -> None:
        super().__init__(*arguments, embed_dim=embed_dim, **options)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, height, width) -> (B, P, C)."""
        return self.norm(super().forward(pixels))


class PatchEncoder(ImageEncoder):
    """A ViT over patches or a convolutional stem."""

    def __init__(self, config: EncoderConfig, image: ImageConfig, *, drop_path: float = 0.0, pretrained: bool = False) -> None:
        """Build the encoder; `pretrained` downloads the weights that timm has for its stem or for the whole encoder."""
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        if config.stem_detector and (set(image.mean), set(image.std)) != ({0.5}, {0.5}):
            raise ConfigError(f"stem_detector needs pixels in -1..1: mean and std are {image.mean} and {image.std}, not 0.5")
        self.grid = PatchGrid(image.height // config.stride, image.width // config.stride)
        if config.timm_model:
            self.vit = timm_transformer(config.timm_model, image, drop_path=drop_path, pretrained=pretrained)
            if (actual := encoder_config_of(config.timm_model, self.vit)) != config:
                raise ConfigError(
                    f"timm's {config.timm_model!r} is {actual}, but the config says {config}; leave its fields as they were"
                )
        else:
            self.vit = self._build(config, image, drop_path, pretrained)
        if (size := self.vit.patch_embed.grid_size) != (self.grid.rows, self.grid.columns):
            raise ConfigError(f"the stem gives a grid of {size}, not {self.grid}; use a size that its strides divide")

    @property
    def dtype(self) -> torch.dtype:
        return self.vit.patch_embed.proj.weight.dtype

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The transformer blocks, first to last."""
        return tuple(self.vit.blocks)

    def _build(self, config: EncoderConfig, image: ImageConfig, drop_path: float, pretrained: bool) -> VisionTransformer:
        options: dict[str, Any] = {}
        if config.stem:
            stem = ConvolutionalStem(
                config.stem, config.stem_strides, detector=config.stem_detector, centered=config.centered, pretrained=pretrained
            )
            options["embed_layer"] = partial(NormedHybridEmbed, backbone=stem)
        vit = VisionTransformer(
            img_size=(image.height, image.width),
            patch_size=1 if config.stem else config.patch_size,
            num_classes=0,
            global_pool="",
            embed_dim=config.hidden_size,
            depth=config.num_layers,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=config.qkv_bias,
            class_token=config.class_token,
            reg_tokens=config.num_register_tokens,
            norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
            drop_path_rate=drop_path,
            init_values=1.0 if config.layer_scale else None,
            **({"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if config.swiglu else {}),
            **options,
        )
        positions = grid_positions(self.grid, config.hidden_size)
        with torch.no_grad():
            if vit.pos_embed.size(1) == config.num_prefix_tokens + len(positions):  # else __init__ rejects the stem's grid
                vit.pos_embed[0, config.num_prefix_tokens :] = positions
        return vit

    def train(self, mode: bool = True) -> PatchEncoder:
        """Set training mode; on a CPU the fused kernel is used outside training only (docs/decisions.md)."""
        super().train(mode)
        for block in self.vit.blocks:
            block.attn.fused_attn = not mode or block.attn.qkv.weight.device.type != "cpu"
        return self

    def stem(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> the input of `finish`: the stem's feature maps, or the pixels if there is no stem."""
        if not self.config.stem:
            return (pixels,)
        return self.vit.patch_embed.backbone.feature_maps(pixels)

    def finish(self, maps: tuple[Tensor, ...]) -> ImageFeatures:
        """Output of `stem` -> ImageFeatures of tokens (B, S, C)."""
        tokens = self._embed(maps)
        for block in self.vit.blocks:
            is_recomputed = self.gradient_checkpointing and self.training
            tokens = checkpoint(block, tokens, use_reentrant=False) if is_recomputed else block(tokens)
        return ImageFeatures(self.vit.norm(tokens), self.grid, self.config.num_prefix_tokens)

    def self_attention(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return each block's attention between image tokens, (B, H, S, S)."""
        tokens, weights = self._embed(self.stem(pixels)), []
        for block in self.vit.blocks:
            attention = block.attn
            projected = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
            query, key, _ = projected.permute(2, 0, 3, 1, 4)  # (B, H, S, K) each
            weights.append(attention_weights(attention.q_norm(query), attention.k_norm(key)))
            tokens = block(tokens)
        return tuple(weights)

    def _embed(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Project to the hidden size, add positions and prefix tokens: (B, S, C)."""
        embed = self.vit.patch_embed
        joined = embed.backbone.join(maps) if self.config.stem else maps[0]
        patches = embed.norm(embed.proj(joined).flatten(2).transpose(1, 2))  # (B, P, C)
        return self.vit.norm_pre(self.vit._pos_embed(patches))


def timm_transformer(name: str, image: ImageConfig, *, drop_path: float = 0.0, pretrained: bool = False) -> VisionTransformer:
    """Return a VisionTransformer that timm knows by name, with its published weights if `pretrained`.

    They come from the hub's cache or the hub. Raises ConfigError if the name is unknown, is not a plain VisionTransformer, or
    the weights cannot be downloaded.
    """
    options = {"num_classes": 0, "global_pool": "", "img_size": (image.height, image.width), "drop_path_rate": drop_path}
    try:
        vit = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # the library and its HTTP client raise many kinds
        raise ConfigError(
            f"encoder {name!r} cannot be created with images of {image.height} x {image.width}; use a name of "
            "timm.list_models('vit_*'), and for pretrained weights a hub that can be reached or its cache"
        ) from error
    return _plain(name, vit)


def _plain(name: str, vit: Any) -> VisionTransformer:
    def is_plain(block: Any) -> bool:
        return hasattr(getattr(block, "attn", None), "qkv") and hasattr(getattr(block, "mlp", None), "fc1")

    if not isinstance(vit, VisionTransformer) or not all(map(is_plain, vit.blocks)) or vit.dynamic_img_size:
        raise ConfigError(f"encoder {name!r} is a {type(vit).__name__} of another kind; it must be one of timm's plain ViTs")
    return vit


def encoder_config_of(name: str, vit: VisionTransformer) -> EncoderConfig:
    """Return the config of a VisionTransformer that timm knows by name."""
    block = vit.blocks[0]
    return EncoderConfig(
        timm_model=name,
        hidden_size=vit.embed_dim,
        num_layers=len(vit.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / vit.embed_dim,
        patch_size=vit.patch_embed.patch_size[0],
        class_token=vit.cls_token is not None,
        num_register_tokens=vit.num_prefix_tokens - int(vit.cls_token is not None),
        layer_norm_eps=block.norm1.eps,
        qkv_bias=block.attn.qkv.bias is not None,
    )


def timm_configs(name: str, size: int = 0) -> tuple[EncoderConfig, ImageConfig]:
    """Return the config of a VisionTransformer that timm knows by name, and its image preprocessing.

    Images are resized without a crop, unlike in timm's own evaluation; `size` replaces its image size, in pixels.
    """
    with torch.device("meta"):  # only to read its numbers: no weights are allocated
        try:
            vit = timm.create_model(name)
        except Exception as error:
            raise ConfigError(f"encoder {name!r} is not known to timm; see timm.list_models('vit_*', pretrained=True)") from error
        data = timm.data.resolve_data_config(model=_plain(name, vit))
        height, width = (size, size) if size else data["input_size"][1:]
        image = ImageConfig(
            height=height,
            width=width,
            resample="bilinear" if data["interpolation"] == "bilinear" else "bicubic",
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )
        return encoder_config_of(name, timm_transformer(name, image)), image


def grid_positions(grid: PatchGrid, size: int) -> Tensor:
    """Return sines and cosines of each patch's row and column, (P, size): the initial value of learned positions.

    Vaswani et al. 2017, section 3.5, in two dimensions. They are as large as a normalized patch embedding, so that the
    network can use them from the first step on.
    """
    quarter = -(-size // 4)
    rates = 10_000 ** -(torch.arange(quarter) / quarter)
    rows, columns = torch.arange(grid.rows), torch.arange(grid.columns)
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    angles = torch.stack([down.flatten(), across.flatten()], dim=1)[..., None] * rates  # (P, 2, quarter)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]
