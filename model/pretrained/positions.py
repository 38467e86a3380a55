"""Position tables of an encoder for another size of picture than the one they were learnt at."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.geometry import PatchGrid


def resized_positions(table: Tensor, prefix: int, old: PatchGrid, new: PatchGrid) -> Tensor:
    """Return a table (1, prefix + new cells, C) of one of (1, prefix + old cells, C): cells bicubic, prefix rows as they are.

    Corners are not aligned and nothing is smoothed, as in the sources' own code; timm smooths.
    """
    if old == new:
        return table
    cells = table[:, prefix:].unflatten(1, (old.rows, old.columns)).permute(0, 3, 1, 2)  # (1, C, rows, columns)
    size = (new.rows, new.columns)
    moved = functional.interpolate(cells, size=size, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([table[:, :prefix], moved.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
