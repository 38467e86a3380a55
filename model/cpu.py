"""What is specific to CPUs: the number of threads, fast bfloat16, and linear layers in the layout of matrix units."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from model.layers import activation_child, linear_children

_QUOTA_FILES = ("/sys/fs/cgroup/cpu.max",)
_QUOTA_FILES_V1 = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")
_PACKED_ROWS = 8  # a hint to oneDNN: any number of rows is accepted


def available_threads() -> int:
    """Return the number of cores that this process may use: the container's CPU quota, else its affinity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_quota() or cores)))


def has_fast_bfloat16() -> bool:
    """Return whether bfloat16 products are faster than float32 here: with AMX, or AVX512-BF16 (Zen 4).

    Measured: 2 to 4 times faster with them, several times slower without (docs/decisions.md).
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and newer
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


class PackedLinear(nn.Module):
    """A linear layer for inference in bfloat16, its weight in the layout that the processor's matrix units read.

    A plain bfloat16 layer is reordered at every call; for a few rows that takes longer than the product itself. Layout and
    product are oneDNN's, through the operators that torch.compile freezes weights with; an activation after it is computed
    before the values are rounded. Gradients are not supported.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None) -> None:
        """`activation` is a GELU or ReLU that follows, None for none."""
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)
        self.bias = None if bias is None else bias.detach()
        self._activation = {nn.GELU: "gelu", nn.ReLU: "relu"}[type(activation)] if activation is not None else "none"
        self._algorithm = activation.approximate if isinstance(activation, nn.GELU) else ""

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, self._activation, [], self._algorithm)
        return output


def can_pack() -> bool:
    """Return whether this build and processor have the operators, and their result equals a plain layer's."""
    try:
        layer = nn.Linear(64, 64, dtype=torch.bfloat16, device="meta").to_empty(device="cpu")
        nn.init.constant_(layer.bias, 0.5)
        nn.init.eye_(layer.weight)  # not random: the caller's random state stays as it was
        values = torch.linspace(-1, 1, 192).reshape(3, 64).to(torch.bfloat16)
        with torch.inference_mode():
            plain, gelu = layer(values), nn.GELU()
            packed, activated = PackedLinear(layer.weight, layer.bias), PackedLinear(layer.weight, layer.bias, gelu)
            return torch.allclose(packed(values), plain, atol=0.05) and torch.allclose(activated(values), gelu(plain), atol=0.05)
    except (RuntimeError, AttributeError, NotImplementedError):  # torch raises the last one where an operator is missing
        return False


def pack_linears(module: nn.Module, *, activations: bool = False) -> None:
    """Replace every linear layer inside a bfloat16 module; with `activations` also the GELU or ReLU inside its perceptrons.

    For the many tokens of an image an activation of its own takes a tenth of the time, for the rows of a decoder next to none.
    """
    layers, activation = linear_children(module), activation_child(module) if activations else None
    for name, layer in layers:
        is_first = activation is not None and name == layers[0][0]
        setattr(module, name, PackedLinear(layer.weight, layer.bias, activation[1] if is_first and activation else None))
    if activation is not None:
        setattr(module, activation[0], nn.Identity())
    for child in module.children():
        pack_linears(child, activations=activations)


def _quota() -> float | None:
    """Return the cgroup's CPU quota in cores, None if there is none."""
    try:
        quota, period = Path(_QUOTA_FILES[0]).read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us, period_us = (int(Path(name).read_text()) for name in _QUOTA_FILES_V1)
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None
