"""How an image becomes pixels and image tokens: the configuration of preprocessing and of the image encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigError
from model.fields import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """How an image becomes the encoder's pixels: the whole image is resized to `height` x `width`, its aspect ratio ignored.

    Only a converted checkpoint whose source does so resizes to `resize_to` first and crops the center, or keeps the aspect
    ratio and adds black at the edges (`pad`, Donut and Nougat).
    """

    height: int = 224  # pixels
    width: int = 224  # pixels
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    resize_to: tuple[int, ...] = ()  # height and width before the center crop, or the shorter edge alone; empty: no crop
    pad: bool = False  # resized until it fits, and black on two sides
    crop_margin: bool = False  # the margin of a page is cropped away first (Nougat)
    full_decode: bool = False  # decode every pixel and apply EXIF before resizing, as the source's own processor does
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # subtracted from values in 0..1
    std: tuple[float, ...] = (0.5, 0.5, 0.5)  # divided by

    def __post_init__(self) -> None:
        require_at_least("image height", self.height, 1)
        require_at_least("image width", self.width, 1)
        smallest = (self.height, self.width) if len(self.resize_to) == 2 else (max(self.height, self.width),)
        if self.resize_to and (
            len(self.resize_to) != len(smallest)
            or any(side < least for side, least in zip(self.resize_to, smallest, strict=True))
        ):
            raise ConfigError(
                f"resize_to is {self.resize_to!r}; it must be a height and a width, none below {self.height} x {self.width}, or "
                "the shorter edge"
            )
        if (self.pad and self.resize_to) or ((self.pad or self.crop_margin) and not self.full_decode):
            raise ConfigError(f"pad is {self.pad}, crop_margin {self.crop_margin}; they need full_decode, and no resize_to")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean {self.mean!r} and std {self.std!r} need three numbers each, std above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """An image encoder of timm: a VisionTransformer over patches or a convolutional stem (a hybrid), or another architecture.

    Encoders with stages (swin, swinv2, davit) halve rows and columns from stage to stage; `hidden_size` is that of their tokens,
    `num_layers` and `num_heads` are those of all stages and of the last one.
    """

    architecture: Literal["vit", "beit", "swin", "swinv2", "davit"] = "vit"
    timm_model: str = ""  # a timm VisionTransformer, whose numbers the fields below repeat; empty: built from those fields
    hidden_size: int = 384
    num_layers: int = 2
    num_heads: int = 6
    mlp_ratio: float = 4.0
    patch_size: int = 16  # pixels per side; without a stem only
    stem: str = ""  # a timm convolutional backbone; empty: plain patches
    stem_strides: tuple[int, ...] = (16,)  # feature maps taken from the stem; coarser ones are upsampled and concatenated
    stem_detector: str = ""  # a detector of model/detector.py whose class map is one more feature map; empty: none
    centered: bool = False  # strided convolutions of the stem padded so that patches are centered on what they show
    class_token: bool = True
    num_register_tokens: int = 0  # register and distillation tokens, after the class token
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    layer_scale: bool = False  # a learned factor per channel for the output of each block (BEiT, DINOv2)
    swiglu: bool = False  # perceptrons with a gate, half of mlp_ratio wide each (the largest DINOv2)
    absolute_positions: bool = True
    relative_positions: Literal["none", "layer", "shared"] = (
        "none"  # a bias of attention by distance, of each layer or of all (BEiT)
    )
    final_norm: bool = True  # layer norm after the last block
    stage_depths: tuple[int, ...] = ()  # blocks of each stage
    stage_heads: tuple[int, ...] = ()
    stage_sizes: tuple[int, ...] = ()  # hidden size of each stage
    window_size: int = 0  # patches per side of a window
    pretrained_window_sizes: tuple[int, ...] = ()  # swinv2: the windows that its position biases were trained with, by stage
    pooled_token: bool = False  # davit: the mean of the patches becomes a token before them, and all are projected (Florence-2)

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_heads", "patch_size"):
            require_at_least(f"encoder {name}", getattr(self, name), 1)
        require_at_least("encoder num_layers", self.num_layers, 0)
        require_at_least("encoder num_register_tokens", self.num_register_tokens, 0)
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"encoder hidden_size {self.hidden_size} must be a multiple of num_heads, {self.num_heads}")
        if ":" in self.timm_model:
            raise ConfigError(f"encoder timm_model is {self.timm_model!r}; it must be a name that timm knows, not an address")
        if self.timm_model and self.stem:
            raise ConfigError(f"the encoder has timm_model {self.timm_model!r} and stem {self.stem!r}; it can have one of them")
        if self.stem and (not self.stem_strides or list(self.stem_strides) != sorted(set(self.stem_strides))):
            raise ConfigError(f"stem_strides {self.stem_strides!r} must be one or more strides, smallest first")

        stages = (len(self.stage_depths), len(self.stage_heads), len(self.stage_sizes))
        if self.has_stages and (min(stages) < 1 or len(set(stages)) > 1 or self.window_size < 1):
            raise ConfigError(
                f"a {self.architecture} encoder has {stages} stage_depths, stage_heads and stage_sizes and a window_size of "
                f"{self.window_size}; it needs a value of each per stage, and a window"
            )
        if self.has_stages:
            self._check_stages()
        if self.pooled_token and self.architecture != "davit":
            raise ConfigError(
                f"pooled_token is set, but the encoder's architecture is {self.architecture!r}; only 'davit' has it"
            )
        if self.architecture != "vit" and (self.timm_model or self.stem):
            raise ConfigError(f"the encoder's architecture is {self.architecture!r}; only 'vit' can have a timm_model or a stem")
        if (self.stem_detector or self.centered) and not self.stem:
            raise ConfigError(
                f"stem_detector is {self.stem_detector!r}, centered {self.centered}, but there is no stem; name one"
            )

    def _check_stages(self) -> None:
        if self.class_token or self.num_register_tokens:
            raise ConfigError(
                f"class_token and num_register_tokens must be false and 0: a {self.architecture} has no such tokens"
            )
        if self.num_layers != sum(self.stage_depths):
            raise ConfigError(f"encoder num_layers is {self.num_layers}; the stage_depths sum up to {sum(self.stage_depths)}")
        if self.hidden_size != self.stage_sizes[-1] and not self.pooled_token:
            raise ConfigError(f"encoder hidden_size is {self.hidden_size}; the last stage has {self.stage_sizes[-1]}")

    @property
    def num_prefix_tokens(self) -> int:
        """Class, distillation, register and pooled tokens: they come before the patches and have no position in the image."""
        return int(self.class_token) + self.num_register_tokens + int(self.pooled_token)

    @property
    def has_stages(self) -> bool:
        """Whether patches are merged from stage to stage."""
        return self.architecture in ("swin", "swinv2", "davit")

    @property
    def stride(self) -> int:
        """Pixels per patch and side."""
        if self.has_stages:
            return self.patch_size * 2 ** (len(self.stage_depths) - 1)
        return self.stem_strides[0] if self.stem else self.patch_size
