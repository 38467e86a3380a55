"""Linear layers whose weights lie as the processor's bfloat16 matrix units read them.

A plain bfloat16 layer is laid out anew at every call; for a few rows that takes longer than the product itself. The layout and
the product are oneDNN's, through the operators that torch.compile freezes its weights with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROWS = 8  # a hint only: any number of rows is taken


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU; its weight can be multiplied with and nothing else."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        mixed: Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")
        return mixed


def can_pack() -> bool:
    """Return whether this build and processor have the operators, and they give what a plain layer gives."""
    try:
        layer = nn.Linear(64, 64, dtype=torch.bfloat16, device="meta").to_empty(device="cpu")
        nn.init.constant_(layer.bias, 0.5)
        nn.init.eye_(layer.weight)  # nothing is drawn: somebody's seed stays as it was
        values = torch.linspace(-1, 1, 192).reshape(3, 64).to(torch.bfloat16)
        with torch.inference_mode():
            return torch.allclose(PackedLinear(layer.weight, layer.bias)(values), layer(values), atol=0.05)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def pack_linears(module: nn.Module) -> None:
    """Replace every linear layer inside a bfloat16 module."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child.weight, child.bias))
        else:
            pack_linears(child)
