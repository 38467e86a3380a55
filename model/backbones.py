"""Image encoders of timm that are no ViTs: BEiT, Swin, Swin v2 and DaViT. Knows pixels and patches, not text.

Shapes: B images, S image tokens (prefix + patches), P patches, C hidden size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d, Mlp
from timm.models.beit import Beit
from timm.models.davit import ChannelAttentionV2, ConvPosEnc, DaVit, Downsample
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn
from torch.nn import functional

from model.config import EncoderConfig, ImageConfig
from model.encoder import ImageEncoder, ImageFeatures, PatchEncoder
from model.geometry import PatchGrid

_SPLIT_TOKENS = 4096
_STAGE_EPSILON = 1e-5  # of Swin's norms between stages, whatever the others have (transformers' models/swin)


class PaddedBlock(SwinTransformerBlock):  # type: ignore[misc]
    """A block that pads its patches to whole windows before they are shifted, as transformers does; timm shifts them first.

    It makes a difference only where the windows do not divide the grid.
    """

    def _attn(self, patches: Tensor) -> Tensor:
        return super()._attn(_padded(patches, self.window_size))[:, : patches.size(1), : patches.size(2)]


class PaddedBlockV2(SwinTransformerV2Block):  # type: ignore[misc]
    """PaddedBlock for Swin v2."""

    def _attn(self, patches: Tensor) -> Tensor:
        return super()._attn(_padded(patches, self.window_size))[:, : patches.size(1), : patches.size(2)]


class GroupedChannelAttention(ChannelAttentionV2):  # type: ignore[misc]
    """Attention between the channels of a group (Ding et al. 2022, section 3.2), a group at a time.

    timm's products of all groups copy queries, keys and outputs into another layout first, which takes longer than the products.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P, C) -> (B, P, C)."""
        parts = self.qkv(tokens).unflatten(-1, (3, self.groups, -1))  # (B, P, 3, groups, channels of a group)
        outputs = []
        for query, key, value in (part.unbind(2) for part in parts.unbind(3)):
            # The query is scaled, not the product: in float16 a sum over all tokens can overflow.
            weights = ((query * tokens.size(1) ** -0.5).transpose(1, 2) @ key).softmax(dim=-1)  # between channels
            outputs.append(value @ weights.transpose(1, 2))
        return self.proj(torch.cat(outputs, dim=-1))


class SplitMlp(Mlp):  # type: ignore[misc]
    """A perceptron that, for inference, takes some tokens at a time: its hidden values stay in the processor's cache."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P, C) -> the same."""
        if torch.is_grad_enabled() or tokens.device.type != "cpu":
            return super().forward(tokens)
        return torch.cat([super(SplitMlp, self).forward(part) for part in tokens.split(_SPLIT_TOKENS, dim=1)], dim=1)


class ChannelsLastPositions(ConvPosEnc):  # type: ignore[misc]
    """The convolution before attention and perceptron, of maps whose channels are last in memory: their tokens need no copy."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, rows, columns) -> the same."""
        return super().forward(_with_batch_stride(maps))


class ChannelsLastDownsample(Downsample):  # type: ignore[misc]
    """The convolution between stages, of maps whose channels are last in memory."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, rows, columns) -> (B, more C, half the rows, half the columns)."""
        return super().forward(_with_batch_stride(maps))


class PooledProjector(nn.Module):
    """The mean of the patches as a token before them, and a projection of all (Florence-2; Xiao et al. 2024, section 3.3).

    The source's embeddings of rows, columns and the first frame of a video are one table of positions here.
    """

    def __init__(self, num_patches: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(num_patches, size) * 0.02)  # (P, size)
        self.projection = nn.Linear(size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, P, size) -> (B, 1 + P, C)."""
        positioned = patches + self.positions
        return self.norm(self.projection(torch.cat([positioned.mean(dim=1, keepdim=True), positioned], dim=1)))


class BackboneEncoder(ImageEncoder):
    """Pixels to patch embeddings, by a timm network that is used as a whole."""

    def __init__(self, config: EncoderConfig, image: ImageConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.grid = PatchGrid(image.height // config.stride, image.width // config.stride)
        self.backbone: Any = _backbone(config, (image.height, image.width), drop_path)
        size = config.stage_sizes[-1] if config.has_stages else config.hidden_size
        self.projector = PooledProjector(self.grid.num_patches, size, config.hidden_size) if config.pooled_token else None

    @property
    def dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The transformer blocks, first to last."""
        if not self.config.has_stages:
            return tuple(self.backbone.blocks)
        stages = self.backbone.stages if self.config.architecture == "davit" else self.backbone.layers
        return tuple(block for stage in stages for block in stage.blocks)

    def finish(self, maps: tuple[Tensor, ...]) -> ImageFeatures:
        """Output of `stem` -> ImageFeatures of tokens (B, S, C)."""
        (pixels,) = maps
        self.backbone.set_grad_checkpointing(self.gradient_checkpointing and self.training)
        if pixels.device.type == "cpu" and self.config.architecture == "davit" and not torch.is_grad_enabled():
            # One after the other: the values of a whole batch are so large that the system gives new pages for each tensor.
            tokens = torch.cat([self._tokens(image) for image in pixels.split(1)])
        else:
            tokens = self._tokens(pixels)
        tokens = tokens if self.projector is None else self.projector(tokens)
        return ImageFeatures(tokens, self.grid, self.config.num_prefix_tokens)

    def _tokens(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, height, width) -> (B, S, C), before the projection if there is one."""
        if self.config.architecture == "davit":
            maps = self.backbone.forward_features(pixels.contiguous(memory_format=torch.channels_last))
            return maps.flatten(2).transpose(1, 2)  # (B, C, rows, columns) -> (B, P, C)
        tokens: Tensor = self.backbone.forward_features(pixels)
        return tokens.flatten(1, 2) if self.config.has_stages else tokens  # (B, rows, columns, C) -> (B, P, C)


_FASTER = {  # timm's parts of a DaViT, and those with the same results that are used instead
    ChannelAttentionV2: GroupedChannelAttention,
    ConvPosEnc: ChannelsLastPositions,
    Mlp: SplitMlp,
    Downsample: ChannelsLastDownsample,
}


def make_encoder(config: EncoderConfig, image: ImageConfig, *, drop_path: float = 0.0, pretrained: bool = False) -> ImageEncoder:
    """Return the encoder of a config; `pretrained` downloads the weights that timm has for a ViT or a stem."""
    if config.architecture == "vit":
        return PatchEncoder(config, image, drop_path=drop_path, pretrained=pretrained)
    return BackboneEncoder(config, image, drop_path=drop_path)


def _backbone(config: EncoderConfig, size: tuple[int, int], drop_path: float) -> nn.Module:
    norm = partial(nn.LayerNorm, eps=config.layer_norm_eps)
    shared = {"num_classes": 0, "global_pool": "", "mlp_ratio": config.mlp_ratio, "drop_path_rate": drop_path}
    if config.architecture == "davit":
        network = DaVit(
            depths=config.stage_depths,
            embed_dims=config.stage_sizes,
            num_heads=config.stage_heads,
            window_size=config.window_size,
            qkv_bias=config.qkv_bias,
            norm_eps=config.layer_norm_eps,
            down_kernel_size=3,
            channel_attn_v2=True,
            named_blocks=True,
            **shared,
        )
        assert isinstance(network.stem.norm, LayerNorm2d), "another normalization than the source's"
        network.head = nn.Identity()
        for module in network.modules():  # timm has no parameters for the classes of its parts
            module.__class__ = _FASTER.get(type(module), type(module))
        return network
    if config.architecture == "beit":
        network = Beit(
            img_size=size,
            patch_size=config.patch_size,
            embed_dim=config.hidden_size,
            depth=config.num_layers,
            num_heads=config.num_heads,
            qkv_bias=config.qkv_bias,
            norm_layer=norm,
            init_values=1.0 if config.layer_scale else None,
            use_abs_pos_emb=config.absolute_positions,
            use_rel_pos_bias=config.relative_positions == "layer",
            use_shared_rel_pos_bias=config.relative_positions == "shared",
            **shared,
        )
    else:
        windows = config.pretrained_window_sizes
        options = shared | {
            "img_size": size,
            "patch_size": config.patch_size,
            "embed_dim": config.stage_sizes[0],
            "depths": config.stage_depths,
            "num_heads": config.stage_heads,
            "window_size": config.window_size,
            "qkv_bias": config.qkv_bias,
            "norm_layer": norm,
        }
        if config.architecture == "swinv2":
            network = SwinTransformerV2(**options, **({"pretrained_window_sizes": windows} if windows else {}))
        else:
            network = SwinTransformer(**options)
        for name, module in network.named_modules():
            if name == "patch_embed.norm" or name.endswith("downsample.norm"):
                module.eps = _STAGE_EPSILON
            elif isinstance(module, SwinTransformerBlock | SwinTransformerV2Block):  # timm has no parameter for the class
                module.__class__ = PaddedBlock if isinstance(module, SwinTransformerBlock) else PaddedBlockV2
                if 0 in module.shift_size:  # timm shifts along one side where the other is no longer than a window
                    module.shift_size = (0, 0)
                    module._init_buffers()
    network.norm = network.norm if config.final_norm else nn.Identity()
    return network


def _padded(patches: Tensor, window: tuple[int, int]) -> Tensor:
    """Add zeros at the bottom and on the right of (B, rows, columns, C) up to whole windows."""
    bottom, right = -patches.size(1) % window[0], -patches.size(2) % window[1]
    return functional.pad(patches, (0, 0, 0, right, 0, bottom))


def _with_batch_stride(maps: Tensor) -> Tensor:
    """Return maps (B, C, rows, columns) of one image with the stride of a batch, if their channels are last in memory.

    A view of one image may have any stride there, by which convolutions take its channels to be first, and copy it twice.
    """
    if maps.size(0) != 1 or not maps.is_contiguous(memory_format=torch.channels_last):
        return maps
    _, channels, rows, columns = maps.shape
    return maps.as_strided(maps.shape, (channels * rows * columns, 1, columns * channels, channels))
