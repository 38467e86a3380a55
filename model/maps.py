"""A word's map: from the attention rows of its tokens to a distribution over the cells, and what is read off it.

Shapes: T tokens of a word, P cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.geometry import Box, PatchGrid

NOTHING = 1e-6  # an image mass below this has no direction: the map is uniform


@dataclass(frozen=True, slots=True)
class WordMap:
    """Where a word looked. values (P,) >= 0, sum 1, row-major over the grid; image_mass 0..1 is the sum before."""

    values: Tensor
    image_mass: float

    @property
    def focus(self) -> float:
        """1 − entropy / ln(cells): 0 for a uniform map, 1 for a single cell."""
        if self.values.numel() == 1:
            return 1.0
        entropy = -torch.special.xlogy(self.values, self.values).sum().item()
        return min(1.0, max(0.0, 1 - entropy / math.log(self.values.numel())))


def word_map(rows: Tensor) -> WordMap:
    """Merge the attention rows (T, P) of a word's tokens: their mean, divided by its own sum."""
    mean = rows.mean(dim=0).double()
    mass = mean.sum().item()
    if mass < NOTHING:
        return WordMap(torch.full_like(mean, 1 / mean.numel()), mass)
    return WordMap(mean / mass, min(mass, 1.0))


def peak_box(values: Tensor, grid: PatchGrid, covers: Box) -> tuple[int, int, int, int]:
    """Return the bounds, in pixels rounded outwards, of the cells above half the peak that hang together with it.

    values (P,). Cells hang together through their edges (4-connected); the peak is the first of equal ones.
    """
    peak = int(values.argmax())
    wide = grid.columns + 1  # a bit a cell, and one that is never set behind each row: neighbours are shifts
    above = functional.pad((values > values[peak] / 2).reshape(grid.rows, grid.columns), (0, 1)).flatten().tolist()
    bits = int("".join("1" if cell else "0" for cell in reversed(above)), 2)
    found, grown = 0, 1 << (peak // grid.columns * wide + peak % grid.columns)
    bits |= grown
    while grown != found:
        found = grown
        grown = (found | found << 1 | found >> 1 | found << wide | found >> wide) & bits
    rows = range((found & -found).bit_length() // wide, found.bit_length() // wide + 1)
    columns = 0
    for row in rows:
        columns |= found >> row * wide & ((1 << grid.columns) - 1)
    first = covers.cell(grid, rows.start * grid.columns + (columns & -columns).bit_length() - 1)
    last = covers.cell(grid, rows[-1] * grid.columns + columns.bit_length() - 1)
    # A billionth of a pixel: sums of fractions must not round a whole pixel outwards.
    return (
        math.floor(first.x0 + 1e-9),
        math.floor(first.y0 + 1e-9),
        math.ceil(last.x1 - 1e-9),
        math.ceil(last.y1 - 1e-9),
    )


def resample(values: Tensor, grid: PatchGrid, covers: Box, size: tuple[int, int], target: PatchGrid) -> Tensor:
    """Return the map on `target`, which tiles the whole photograph of `size` (width, height): (cells of target,).

    Bilinear between cell centres, 0 outside `covers`, divided by its sum again.
    """
    width, height = size
    x = (torch.arange(target.columns, dtype=torch.float64) + 0.5) * width / target.columns
    y = (torch.arange(target.rows, dtype=torch.float64) + 0.5) * height / target.rows
    across = 2 * (x - covers.x0) / (covers.x1 - covers.x0) - 1  # -1..1 over what the cells cover
    down = 2 * (y - covers.y0) / (covers.y1 - covers.y0) - 1
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]  # (1, rows, columns, 2)
    cells = values.double().reshape(1, 1, grid.rows, grid.columns)
    sampled = functional.grid_sample(cells, places, "bilinear", "border", align_corners=False)[0, 0]
    inside = (across.abs() <= 1)[None, :] & (down.abs() <= 1)[:, None]
    sampled = torch.where(inside, sampled, 0.0).clamp(min=0).flatten()
    total = sampled.sum()
    return sampled / total if total > 0 else torch.full_like(sampled, 1 / sampled.numel())
