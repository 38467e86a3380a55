"""Position embeddings of an encoder, resized to another image size than the one they were trained at."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.geometry import PatchGrid


def resized_positions(table: Tensor, prefix: int, old: PatchGrid, new: PatchGrid, *, in_float32: bool = False) -> Tensor:
    """Resize a table (1, prefix + old patches, C) to (1, prefix + new patches, C): patches bicubic, prefix rows unchanged.

    Corners are not aligned and there is no antialiasing, as in the sources' own code; timm antialiases.
    `in_float32` resizes in this type whatever the table's, as DINOv2 does.
    """
    if old == new:
        return table
    patches = table[:, prefix:].unflatten(1, (old.rows, old.columns)).permute(0, 3, 1, 2)  # (1, C, rows, columns)
    size = (new.rows, new.columns)
    patches = patches.float() if in_float32 else patches
    resized = functional.interpolate(patches, size=size, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([table[:, :prefix], resized.to(table.dtype).permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
