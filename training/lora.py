"""LoRA: linear layers that keep their weights, with a trained product of two thin matrices added (Hu et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model import CaptionNetwork, linear_children

_A, _B = "lora_a", "lora_b"


class LoraLinear(nn.Linear):
    """A linear layer: W x + b + (alpha / rank) B A x, of which A and B are trained; B starts at 0."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as the weight of nn.Linear

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        update = functional.linear(functional.linear(values, self.lora_a), self.lora_b)
        return functional.linear(values, self.weight, self.bias) + self.scale * update

    def merged(self) -> Tensor:
        """Return the weight (out, in) of a plain layer with the same output."""
        return self.weight + self.scale * (self.lora_b @ self.lora_a)


def add_lora(network: CaptionNetwork, rank: int, alpha: float, frozen: nn.Module | None) -> None:
    """Replace the linear layers of the encoder's blocks and the decoder's layers; those of the frozen module stay as they are.

    Those of a prompt encoder are replaced, too; the fused projections of BEiT and Swin v2 cannot be (`linear_children`). Of the
    other weights only the "no image" embedding is trained.
    """
    network.requires_grad_(False)
    network.no_image.requires_grad_(True)
    left_out = set(frozen.modules()) if frozen is not None else set()
    between = () if network.prompt_encoder is None else network.prompt_encoder.layers
    for part in (*network.encoder.blocks, *between, *network.decoder.layers):
        for module in [module for module in part.modules() if module not in left_out]:
            for name, child in linear_children(module):
                setattr(module, name, LoraLinear(child, rank, alpha))


def merged_weights(network: CaptionNetwork) -> dict[str, Tensor]:
    """Return the state_dict of a network without LoRA that has the same output."""
    weights = {name: value for name, value in network.state_dict().items() if name.rpartition(".")[2] not in (_A, _B)}
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, LoraLinear):
                weights[f"{name}.weight"] = module.merged()
    return weights
