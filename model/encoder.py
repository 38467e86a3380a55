"""The image encoder: timm's VisionTransformer over plain patches or over a convolutional stem.

Knows pixels and patch embeddings. Does not know text.

Shapes: B images, S image tokens (prefix + cells), C width, F stem channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# isort: off
import model.torchvision_operators  # noqa: F401  it must run before timm is imported
import timm
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
# isort: on

from model.attention import attention_weights
from model.config import EncoderConfig, ImageConfig
from model.errors import ConfigError
from model.geometry import PatchGrid


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Encoder output: tokens (B, S, C), S = prefix + cells; cell (r, c) is token prefix + r * columns + c."""

    tokens: Tensor
    grid: PatchGrid
    prefix: int

    def __post_init__(self) -> None:
        expected = self.prefix + self.grid.cells
        assert self.tokens.size(1) == expected, f"{self.tokens.size(1)} image tokens; prefix + cells is {expected}"

    def select(self, images: list[int]) -> ImageFeatures:
        return ImageFeatures(self.tokens[images], self.grid, self.prefix)

    def append(self, other: ImageFeatures) -> ImageFeatures:
        """Return these images and those of `other`, of the same encoder, behind them."""
        return ImageFeatures(torch.cat([self.tokens, other.tokens]), self.grid, self.prefix)


class ConvolutionalStem(nn.Module):
    """Feature maps of a timm backbone at one or more strides, joined on the finest one's grid: (B, F, rows, columns)."""

    def __init__(self, name: str, strides: tuple[int, ...], *, pretrained: bool = False) -> None:
        super().__init__()
        try:
            with torch.device("meta"):  # only to ask for its strides: no weights are made
                available = timm.create_model(name, features_only=True).feature_info.reduction()
        except RuntimeError as error:
            raise ConfigError(f"stem is {name!r}; it must be a convolutional backbone that timm knows ({error})") from error
        if missing := [stride for stride in strides if stride not in available]:
            raise ConfigError(f"stem {name!r} has no feature map at strides {missing}; it has {available}")
        indices = tuple(available.index(stride) for stride in strides)
        self.backbone = timm.create_model(name, features_only=True, out_indices=indices, pretrained=pretrained)

    def maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> one map (B, F, rows, columns) a stride, finest first."""
        return tuple(self.backbone(pixels))

    def join(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Enlarge the coarser maps to the finest one's grid: (B, sum of F, rows, columns)."""
        finest, *coarser = maps
        size = finest.shape[-2:]
        enlarged = [functional.interpolate(coarse, size=size, mode="bilinear") for coarse in coarser]
        return torch.cat([finest, *enlarged], dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, height, width) -> (B, F, rows, columns)."""
        return self.join(self.maps(pixels))


class NormedHybridEmbed(HybridEmbed):  # type: ignore[misc]
    """timm's HybridEmbed with a norm behind its projection, so that positions are not drowned by the stem's scale."""

    def __init__(self, *arguments: Any, embed_dim: int, **options: Any) -> None:
        super().__init__(*arguments, embed_dim=embed_dim, **options)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, height, width) -> (B, cells, C)."""
        return self.norm(super().forward(pixels))


class PatchEncoder(nn.Module):
    """Pixels to patch embeddings, in two halves: `stem` can be frozen and its output cached, `finish` is the ViT."""

    def __init__(self, config: EncoderConfig, image: ImageConfig, *, drop_path: float = 0.0, pretrained: bool = False) -> None:
        """Make the encoder; `pretrained` fetches the weights that timm has for its stem or for the whole of it."""
        super().__init__()
        self.config = config
        self.grid = PatchGrid(image.height // config.stride, image.width // config.stride)
        if config.timm:
            self.vit = timm_transformer(config.timm, image, drop_path=drop_path, pretrained=pretrained)
            if (found := described(config.timm, self.vit)) != config:
                raise ConfigError(
                    f"timm's {config.timm!r} is {found}, but the config says {config}; leave its fields as they were"
                )
        else:
            self.vit = self._own(config, image, drop_path, pretrained)
        if self.vit.patch_embed.grid_size != (self.grid.rows, self.grid.columns):
            found_grid = self.vit.patch_embed.grid_size
            raise ConfigError(f"the stem gives a grid of {found_grid}, not {self.grid}; use a size that its strides divide")

    def _own(self, config: EncoderConfig, image: ImageConfig, drop_path: float, pretrained: bool) -> VisionTransformer:
        options: dict[str, Any] = {}
        if config.stem:
            stem = ConvolutionalStem(config.stem, config.stem_strides, pretrained=pretrained)
            options["embed_layer"] = partial(NormedHybridEmbed, backbone=stem)
        vit = VisionTransformer(
            img_size=(image.height, image.width),
            patch_size=1 if config.stem else config.patch_size,
            num_classes=0,
            global_pool="",
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=config.qkv_bias,
            class_token=config.class_token,
            reg_tokens=config.registers,
            norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),
            drop_path_rate=drop_path,
            **options,
        )
        cells = grid_positions(self.grid, config.width)
        with torch.no_grad():
            if vit.pos_embed.size(1) == config.prefix + len(cells):  # else the stem's grid is another one, which is told
                vit.pos_embed[0, config.prefix :] = cells
        return vit

    def train(self, mode: bool = True) -> PatchEncoder:
        """Set training mode; the fused kernel is on outside training only (docs/decisions.md)."""
        super().train(mode)
        for block in self.vit.blocks:
            block.attn.fused_attn = not mode
        return self

    def stem(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """pixels (B, 3, height, width) -> what `finish` takes: the stem's maps, or the pixels where there is no stem."""
        if not self.config.stem:
            return (pixels,)
        return self.vit.patch_embed.backbone.maps(pixels)

    def finish(self, maps: tuple[Tensor, ...]) -> ImageFeatures:
        """What `stem` returned -> ImageFeatures of tokens (B, S, C)."""
        tokens = self._embed(maps)
        for block in self.vit.blocks:
            tokens = block(tokens)
        return ImageFeatures(self.vit.norm(tokens), self.grid, self.config.prefix)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """pixels (B, 3, height, width) -> ImageFeatures of tokens (B, S, C)."""
        return self.finish(self.stem(pixels))

    def self_attention(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return each block's attention between image tokens, (B, H, S, S): for methods that trace it back."""
        tokens, seen = self._embed(self.stem(pixels)), []
        for block in self.vit.blocks:
            attention = block.attn
            projected = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
            query, key, _ = projected.permute(2, 0, 3, 1, 4)  # (B, H, S, K) each
            seen.append(attention_weights(attention.q_norm(query), attention.k_norm(key)))
            tokens = block(tokens)
        return tuple(seen)

    def _embed(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Project to the width, add positions and prefix tokens: (B, S, C)."""
        embed = self.vit.patch_embed
        joined = embed.backbone.join(maps) if self.config.stem else maps[0]
        patches = embed.norm(embed.proj(joined).flatten(2).transpose(1, 2))  # (B, cells, C)
        return self.vit.norm_pre(self.vit._pos_embed(patches))


def timm_transformer(name: str, image: ImageConfig, *, drop_path: float = 0.0, pretrained: bool = False) -> VisionTransformer:
    """Return a VisionTransformer that timm knows by name, with its published weights if `pretrained`.

    They come from the hub's cache or the hub. Raises ConfigError for what is not known, is no plain VisionTransformer, or
    cannot be fetched.
    """
    options = {"num_classes": 0, "global_pool": "", "img_size": (image.height, image.width), "drop_path_rate": drop_path}
    try:
        vit = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # the library and its HTTP client raise many kinds
        told = " ".join(str(error).split())[:300]
        wanted = "a name of timm.list_models('vit_*'), and for its weights the hub or its cache"
        raise ConfigError(f"encoder {name!r} cannot be made ({type(error).__name__}: {told}); it needs {wanted}") from error
    return _plain(name, vit)


def _plain(name: str, vit: Any) -> VisionTransformer:
    def usual(block: Any) -> bool:
        return hasattr(getattr(block, "attn", None), "qkv") and hasattr(getattr(block, "mlp", None), "fc1")

    if not isinstance(vit, VisionTransformer) or not all(map(usual, vit.blocks)) or vit.dynamic_img_size:
        raise ConfigError(f"encoder {name!r} is a {type(vit).__name__} of another kind; it must be one of timm's plain ViTs")
    return vit


def described(name: str, vit: VisionTransformer) -> EncoderConfig:
    """Return the fields of a VisionTransformer that timm knows by name."""
    block = vit.blocks[0]
    return EncoderConfig(
        timm=name,
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / vit.embed_dim,
        patch_size=vit.patch_embed.patch_size[0],
        class_token=vit.cls_token is not None,
        registers=vit.num_prefix_tokens - int(vit.cls_token is not None),
        norm_eps=block.norm1.eps,
        qkv_bias=block.attn.qkv.bias is not None,
    )


def timm_configs(name: str, size: int = 0) -> tuple[EncoderConfig, ImageConfig]:
    """Return what a VisionTransformer that timm knows by name is made of, and how it wants its pictures.

    They are squashed, not cropped as timm's own evaluation does; `size` is another edge than its own, in pixels.
    """
    with torch.device("meta"):  # only to ask for its numbers: no weights are made
        try:
            known = timm.create_model(name)
        except Exception as error:
            raise ConfigError(
                f"encoder {name!r} is not known to timm ({error}); see timm.list_models('vit_*', pretrained=True)"
            ) from error
        wanted = timm.data.resolve_data_config(model=_plain(name, known))
        height, width = (size, size) if size else wanted["input_size"][1:]
        image = ImageConfig(
            height=height,
            width=width,
            resample="bilinear" if wanted["interpolation"] == "bilinear" else "bicubic",
            mean=tuple(wanted["mean"]),
            std=tuple(wanted["std"]),
        )
        return described(name, timm_transformer(name, image)), image


def grid_positions(grid: PatchGrid, width: int) -> Tensor:
    """Return sines and cosines of each cell's row and column, (cells, C): where learnt positions begin.

    Vaswani et al. 2017, section 3.5, in two dimensions. They are as large as a normed patch embedding, so that which of
    two things lies further left can be told from the first step on.
    """
    quarter = -(-width // 4)
    rates = 10_000 ** -(torch.arange(quarter) / quarter)
    rows, columns = torch.arange(grid.rows), torch.arange(grid.columns)
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    turns = torch.stack([down.flatten(), across.flatten()], dim=1)[..., None] * rates  # (cells, 2, quarter)
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(1)[:, :width]
