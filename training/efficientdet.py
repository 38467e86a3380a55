"""Weights of EfficientDet-Lite from a .tflite file, dequantized, in the layout of model/detector.py.

The file has 8-bit weights with a scale per channel, and batch norms merged into them. Tensors are identified by the operators
that use them: the backbone's by their order, the pyramid's and the head's by their names in the graph.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model import ConfigError, Detector

_LATERAL = {3: "lateral.0", 2: "lateral.1", 1: "lateral.2", 4: "lateral_again.0", 5: "lateral_again.1"}  # by node
_CONVOLUTIONS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D"}  # codes of the format's BuiltinOperator


def load_detector(detector: Detector, path: Path) -> None:
    """Load the weights of a .tflite file into a detector. Raises ConfigError if the file is of another network."""
    rest = convolutions(path)
    _load_backbone(detector.backbone, rest)
    for name, weight, bias in rest:
        target = _module_of(detector, name)
        if target is not None:
            _copy(target, name, weight, bias)


def convolutions(path: Path) -> list[tuple[str, Tensor, Tensor]]:
    """Return (name, weight (outputs, inputs, rows, columns), bias (outputs,)) of every convolution of a file, in order."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise ConfigError("reading .tflite files needs ai-edge-litert; install the extra 'detector'") from error
    buffer = path.read_bytes()
    model = schema.Model.GetRootAs(buffer, 0)
    graph = model.Subgraphs(0)

    def values(index: int) -> Tensor:
        tensor = graph.Tensors(index)
        raw = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), {9: np.int8, 2: np.int32}[tensor.Type()])
        quantization = tensor.Quantization()
        shape = [1] * tensor.ShapeLength()
        shape[quantization.QuantizedDimension()] = -1
        scale = quantization.ScaleAsNumpy().reshape(shape)
        return torch.from_numpy((raw.reshape(tensor.ShapeAsNumpy()) * scale.astype(np.float64)).astype(np.float32))

    convolved = []
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = _CONVOLUTIONS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind is None:
            continue
        weight = values(operator.Inputs(1))
        # (outputs, rows, columns, inputs), or (1, rows, columns, channels) of a depthwise convolution
        weight = weight.permute(0, 3, 1, 2) if kind == "CONV_2D" else weight.permute(3, 0, 1, 2)
        name = graph.Tensors(operator.Outputs(0)).Name().decode()
        convolved.append((name, weight.contiguous(), values(operator.Inputs(2))))
    return convolved


def _load_backbone(backbone: nn.Module, rest: list[tuple[str, Tensor, Tensor]]) -> None:
    """Load the first convolutions, in order, into timm's backbone; a batch norm after a convolution adds its bias."""
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for convolution, norm, (name, weight, bias) in zip(convolutions, norms, rest, strict=False):
        if not name.startswith("efficientnet-lite"):
            raise ConfigError(f"the detector's backbone ends before {name!r}; use the file of another EfficientDet-Lite")
        _copy(convolution, name, weight, None)
        state = {"weight": torch.ones_like(bias), "bias": bias, "running_mean": torch.zeros_like(bias),
                 "running_var": torch.full_like(bias, 1 - norm.eps), "num_batches_tracked": torch.tensor(0)}  # fmt: skip
        norm.load_state_dict(state)
    del rest[: len(convolutions)]


def _module_of(detector: Detector, name: str) -> nn.Conv2d | None:
    """Return the convolution that a tensor of the graph belongs to, None for the box head, which is not used."""
    last = name.split(";")[-1]
    if "box_net" in name:
        return None
    path = ""
    if last.startswith("resample_p6"):
        path = "extend"
    elif match := re.match(r"fpn_cells/cell_0/fnode(\d)/resample", last):
        path = _LATERAL[int(match[1])]
    elif match := re.match(r"fpn_cells/cell_(\d+)/fnode(\d)/op_after_combine", last):
        node, part = int(match[2]), "depthwise" if "/depthwise" in last else "pointwise"
        path = f"cells.{match[1]}." + (f"down.{node}.{part}" if node < 4 else f"up.{node - 4}.{part}")
    elif match := re.match(r"class_net/class-(\d)/separable_conv2d(?:_(\d))?(/depthwise)?", last):
        path = f"head.depthwise.{match[1]}" if match[3] else f"head.pointwise.{_level(match[2])}.{match[1]}"
    elif "class_net/class-predict" in name:
        path = f"head.depthwise.{len(detector.head.depthwise) - 1}" if "/depthwise" in last else "head.predict"
    if not path:
        raise ConfigError(f"the detector has an unknown convolution {name!r}; use the file of an EfficientDet-Lite")
    module = detector.get_submodule(path)
    assert isinstance(module, nn.Conv2d)
    return module


def _level(digits: str | None) -> int:
    """Return the level's index from the suffix of a repeated layer: none for the first."""
    return int(digits or 0)


def _copy(target: nn.Conv2d, name: str, weight: Tensor, bias: Tensor | None) -> None:
    if target.weight.shape != weight.shape:
        raise ConfigError(f"{name} is {list(weight.shape)}, not {list(target.weight.shape)}; use the file of EfficientDet-Lite2")
    with torch.no_grad():
        target.weight.copy_(weight)
        if bias is not None and target.bias is not None:
            target.bias.copy_(bias)
