"""A word's map: from the rows of its tokens to a distribution over the patches, and the figures computed from it.

Shapes: T tokens of a word, P patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.geometry import Box, PatchGrid

MIN_MASS = 1e-6  # a sum below it has no direction: the map is uniform


@dataclass(frozen=True, slots=True)
class WordMap:
    """values (P,) >= 0, sum 1, row-major over the grid. image_mass 0..1 is the share of attention on the image.

    image_mass is None for a method that is not a share of attention; prompt_mass, the share on the prompt, also without one.
    """

    values: Tensor
    image_mass: float | None
    prompt_mass: float | None = None

    @property
    def focus(self) -> float:
        """1 − entropy / ln(P): 0 for a uniform map, 1 for a single patch."""
        if self.values.numel() == 1:
            return 1.0
        entropy = -torch.special.xlogy(self.values, self.values).sum().item()
        return min(1.0, max(0.0, 1 - entropy / math.log(self.values.numel())))


def word_map(rows: Tensor, *, is_attention_share: bool = True, prompt_shares: Sequence[float] | None = None) -> WordMap:
    """Merge the rows (T, P) of a word's tokens: their mean, divided by its own sum; `prompt_shares` has a share per token."""
    mean = rows.mean(dim=0).double()
    mass = mean.sum().item()
    image_mass = min(mass, 1.0) if is_attention_share else None
    prompt_mass = sum(prompt_shares) / len(prompt_shares) if prompt_shares else None
    if mass < MIN_MASS:
        return WordMap(torch.full_like(mean, 1 / mean.numel()), image_mass, prompt_mass)
    return WordMap(mean / mass, image_mass, prompt_mass)


def peak_box(values: Tensor, grid: PatchGrid, covers: Box, threshold: float = 0.5) -> tuple[int, int, int, int]:
    """Return the bounds, in pixels rounded outwards, of the connected patches above a share of the peak that contain it.

    values (P,), threshold 0..1. Patches are connected through their edges (4-connected); the peak is the first of equal ones.
    """
    cells: list[float] = values.tolist()
    peak = max(range(len(cells)), key=cells.__getitem__)
    lowest, columns = cells[peak] * threshold, grid.columns
    component, frontier = {peak}, [peak]
    while frontier:  # flood fill
        row, column = divmod(frontier.pop(), columns)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            neighbor = r * columns + c
            if 0 <= r < grid.rows and 0 <= c < columns and neighbor not in component and cells[neighbor] > lowest:
                component.add(neighbor)
                frontier.append(neighbor)
    rows, filled = [cell // columns for cell in component], [cell % columns for cell in component]
    first = covers.cell(grid, min(rows) * columns + min(filled))
    last = covers.cell(grid, max(rows) * columns + max(filled))
    # A billionth of a pixel: sums of fractions must not round a whole pixel outwards.
    return (
        math.floor(first.x0 + 1e-9),
        math.floor(first.y0 + 1e-9),
        math.ceil(last.x1 - 1e-9),
        math.ceil(last.y1 - 1e-9),
    )


def inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of a box inside an image of `size` (width, height), at least a pixel: patches may cover black beside it."""
    (x0, y0, x1, y1), (width, height) = box, size
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, max(min(x1, width), x0 + 1), max(min(y1, height), y0 + 1)


def resample_map(values: Tensor, grid: PatchGrid, covers: Box, size: tuple[int, int], target: PatchGrid) -> Tensor:
    """Return the map on `target`, which tiles the whole image of `size` (width, height): (cells of target,).

    Bilinear between patch centers, 0 outside `covers`, divided by its sum again.
    """
    width, height = size
    x = (torch.arange(target.columns, dtype=torch.float64) + 0.5) * width / target.columns
    y = (torch.arange(target.rows, dtype=torch.float64) + 0.5) * height / target.rows
    across = 2 * (x - covers.x0) / (covers.x1 - covers.x0) - 1  # -1..1 over what the patches cover
    down = 2 * (y - covers.y0) / (covers.y1 - covers.y0) - 1
    points = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]  # (1, rows, columns, 2)
    patches = values.double().reshape(1, 1, grid.rows, grid.columns)
    sampled = functional.grid_sample(patches, points, "bilinear", "border", align_corners=False)[0, 0]
    inside = (across.abs() <= 1)[None, :] & (down.abs() <= 1)[:, None]
    sampled = torch.where(inside, sampled, 0.0).clamp(min=0).flatten()
    total = sampled.sum()
    return sampled / total if total > 0 else torch.full_like(sampled, 1 / sampled.numel())
