"""The tensors of a source, taken by name: each is used once or ignored by its exact name, and none is left over."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from model.errors import CheckpointError

Weights = dict[str, Tensor]


class SourceTensors:
    """Named tensors, and which of them have been taken."""

    def __init__(self, tensors: Weights) -> None:
        self._tensors = tensors
        self._left = set(tensors)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def has_any(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._tensors)

    def first(self, *names: str) -> str:
        """Return the first of several names that a tensor has. Raises CheckpointError if there is none."""
        name = next((name for name in names if name in self._tensors), None)
        if name is None:
            expected = " or ".join(map(repr, names))
            raise CheckpointError(f"the source lacks {expected}; copy its weights again, or it is of another family")
        return name

    def take(self, *names: str) -> Tensor:
        """Return a tensor by the first of its names that exists."""
        name = self.first(*names)
        self._left.discard(name)
        return self._tensors[name]

    def take_optional(self, *names: str) -> Tensor | None:
        """Return a tensor by the first of its names that exists, None if there is none."""
        return self.take(*names) if any(name in self._tensors for name in names) else None

    def module(self, ours: str, *theirs: str, transposed: bool = False) -> Weights:
        """Return a layer's weight, and its bias if it has one, under our name; `transposed` for GPT-2's Conv1D."""
        name = next((name for name in theirs if self.has(f"{name}.weight")), theirs[0])
        weight = self.take(f"{name}.weight")
        weights = {f"{ours}.weight": weight.T.contiguous() if transposed else weight}
        if self.has(f"{name}.bias"):
            weights[f"{ours}.bias"] = self.take(f"{name}.bias")
        return weights

    def split(self, ours: Iterable[str], theirs: str) -> Weights:
        """Return the parts of one of GPT-2's fused Conv1D layers, (in, parts * out), each under our name."""
        names = list(ours)
        matrices = self.take(f"{theirs}.weight").T.chunk(len(names))
        biases = self.take(f"{theirs}.bias").chunk(len(names))
        weights: Weights = {}
        for name, weight, bias in zip(names, matrices, biases, strict=True):
            weights |= {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias.contiguous()}
        return weights

    def ignore(self, *patterns: str) -> None:
        """Ignore tensors that captions do not need: copies, masks, other parts of the network. Patterns match full names."""
        self._left = {name for name in self._left if not any(re.fullmatch(pattern, name) for pattern in patterns)}

    def ignore_names(self, *names: str) -> None:
        """Ignore tensors by their exact names."""
        self._left -= set(names)

    def finish(self) -> None:
        """Raises CheckpointError that names the tensors that are neither used nor ignored."""
        if self._left:
            some = ", ".join(sorted(self._left)[:4])
            raise CheckpointError(
                f"the source has {len(self._left)} tensors that are not known ({some}); it is of another family, or a newer one"
            )
