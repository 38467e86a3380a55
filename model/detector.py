"""EfficientDet-Lite without boxes: a backbone, its BiFPN and its class head, so that patches know which objects they show.

Tan, Pang and Le 2020, "EfficientDet", sections 3 and 4; the Lite variants have no squeeze-and-excitation, ReLU6, and plain sums
where the others weight. Boxes are not predicted. training/efficientdet.py converts trained weights into this layout.

Shapes: B images, F channels of a map, K classes, A anchors per position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn
from torch.nn import functional

from model.errors import ConfigError

LEVELS = (3, 4, 5, 6, 7)  # pyramid level n has stride 2^n


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """The sizes of a detector."""

    backbone: str  # a timm backbone with feature maps at strides 8, 16 and 32
    channels: int  # of every level of the pyramid
    cells: int  # of the BiFPN
    head_layers: int
    anchors: int = 9
    classes: int = 90  # COCO category id - 1


DETECTORS = {"efficientdet_lite2": DetectorConfig("tf_efficientnet_lite2", channels=112, cells=5, head_layers=3)}


class SeparableConv(nn.Module):
    """A depthwise 3 x 3 convolution, then a pointwise one; batch norms are merged into them."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, rows, columns) -> (B, outputs, rows, columns)."""
        return self.pointwise(self.depthwise(maps))


class PyramidCell(nn.Module):
    """One BiFPN layer: down the levels, then up again; a node is a separable convolution of the ReLU6 of a sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(SeparableConv(channels, channels) for _ in LEVELS[1:])  # levels 6, 5, 4, 3
        self.up = nn.ModuleList(SeparableConv(channels, channels) for _ in LEVELS[1:])  # levels 4, 5, 6, 7
        self.pool = MaxPool2dSame(3, 2)

    def forward(self, fine: Sequence[Tensor], again: Sequence[Tensor]) -> list[Tensor]:
        """`fine` are maps (B, F, rows, columns) of levels 3 to 7; `again` are levels 4 to 7 as the way up reads them."""
        lowered = [fine[-1]]  # levels 7, 6, 5, 4, 3
        for node, level in zip(self.down, reversed(fine[:-1]), strict=True):
            coarse = functional.interpolate(lowered[-1], size=level.shape[-2:], mode="nearest")
            lowered.append(node(functional.relu6(level + coarse)))
        outputs = [lowered[-1]]
        for index, (node, level) in enumerate(zip(self.up, again, strict=True)):
            total = level + self.pool(outputs[-1])
            if index < len(self.up) - 1:  # level 7 has no node on the way down
                total = total + lowered[-2 - index]
            outputs.append(node(functional.relu6(total)))
        return outputs


class ClassHead(nn.Module):
    """Class scores of every anchor; the levels share depthwise convolutions and have pointwise ones of their own."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        size, outputs = config.channels, config.anchors * config.classes
        self.anchors, self.classes = config.anchors, config.classes
        self.depthwise = nn.ModuleList(
            nn.Conv2d(size, size, 3, padding=1, groups=size, bias=False) for _ in range(config.head_layers + 1)
        )
        self.pointwise = nn.ModuleList(nn.ModuleList(nn.Conv2d(size, size, 1) for _ in range(config.head_layers)) for _ in LEVELS)
        self.predict = nn.Conv2d(size, outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, F, rows, columns) -> logits (B, K, rows, columns) of each level: the largest of the anchors'."""
        logits = []
        for level, layers in zip(maps, self.pointwise, strict=True):
            assert isinstance(layers, nn.ModuleList)
            hidden = level
            for depthwise, pointwise in zip(self.depthwise[:-1], layers, strict=True):
                hidden = functional.relu6(pointwise(depthwise(hidden)))
            scores = self.predict(self.depthwise[-1](hidden))
            logits.append(scores.unflatten(1, (self.anchors, self.classes)).amax(dim=1))
        return logits


class Detector(nn.Module):
    """A frozen object detector without its box head: pixels to a map of class scores."""

    def __init__(self, name: str) -> None:
        """Raises ConfigError for a name that is not in DETECTORS."""
        super().__init__()
        if name not in DETECTORS:
            raise ConfigError(f"detector is {name!r}; it must be one of {', '.join(DETECTORS)}")
        config = DETECTORS[name]
        self.backbone = timm.create_model(config.backbone, features_only=True, out_indices=(2, 3, 4))
        center_patches(self.backbone)
        sizes = self.backbone.feature_info.channels()
        self.lateral = nn.ModuleList(nn.Conv2d(size, config.channels, 1) for size in sizes)  # levels 3 to 5
        self.lateral_again = nn.ModuleList(nn.Conv2d(size, config.channels, 1) for size in sizes[1:])  # 4, 5 on the way up
        self.extend = nn.Conv2d(sizes[-1], config.channels, 1)  # levels 6 and 7 are pooled from it
        self.pool = MaxPool2dSame(3, 2)
        self.cells = nn.ModuleList(PyramidCell(config.channels) for _ in range(config.cells))
        self.head = ClassHead(config)

    def pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps of strides 8, 16, 32 -> levels 3 to 7 (B, F, rows, columns)."""
        sixth = self.pool(self.extend(maps[-1]))
        coarse = [sixth, self.pool(sixth)]
        levels = [lateral(value) for lateral, value in zip(self.lateral, maps, strict=True)] + coarse
        again = [lateral(value) for lateral, value in zip(self.lateral_again, maps[1:], strict=True)] + coarse
        for cell in self.cells:
            levels = cell(levels, again)
            again = levels[1:]
        return levels

    def class_logits(self, pixels: Tensor) -> list[Tensor]:
        """pixels (B, 3, height, width) in -1..1 -> logits (B, K, rows, columns) of levels 3 to 7.

        The detector was trained with (value - 127) / 128 for values 0..255.
        """
        logits: list[Tensor] = self.head(self.pyramid(self.backbone(pixels * (255 / 256) + 1 / 256)))
        return logits

    def forward(self, pixels: Tensor, size: torch.Size) -> Tensor:
        """pixels (B, 3, height, width) in -1..1 -> class map (B, K, *size): the largest score of a patch at any level.

        Values are four times the square root of a probability, so that small scores are as large as other features.
        """
        logits = self.class_logits(pixels)
        best = functional.adaptive_max_pool2d(logits[0], size)
        for level in logits[1:]:
            best = torch.maximum(best, functional.interpolate(level, size=size, mode="nearest"))
        return 4 * best.sigmoid().sqrt()


def center_patches(backbone: nn.Module) -> None:
    """Pad the first three convolutions of stride 2 on both sides, so that patches of stride 16 are centered on what they show.

    TensorFlow pads them at the end only: every such layer moves its map by half a position, stride 16 by 7.5 pixels. Moving the
    first three the other way leaves half a pixel. It is the same as moving the image by 7 pixels. Raises ConfigError for a
    backbone that is padded otherwise.
    """
    strided = [module for module in backbone.modules() if isinstance(module, Conv2dSame) and module.stride == (2, 2)]
    if len(strided) < 4:
        raise ConfigError(
            f"centered is true, but the stem has {len(strided)} strided convolutions that are padded as TensorFlow does, not "
            "four or more; use it with one of timm's tf_ backbones only"
        )
    for module in strided[:3]:
        module.__class__ = nn.Conv2d  # the subclass only adds the padding
        module.padding = (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
