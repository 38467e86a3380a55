"""Where things are: the patch grid, rectangles of the photograph, the prepared picture.

Coordinates are pixels of the upright photograph, origin top left, `[x0, y0, x1, y1)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Rows and columns of cells, row-major; row 0 is the top."""

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright photograph."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        return max(self.x1 - self.x0, 0.0) * max(self.y1 - self.y0, 0.0)

    def cell(self, grid: PatchGrid, index: int) -> Box:
        """Return the part of this rectangle that cell `index` of `grid` covers, when the grid tiles it evenly."""
        row, column = divmod(index, grid.columns)
        width, height = (self.x1 - self.x0) / grid.columns, (self.y1 - self.y0) / grid.rows
        left, top = self.x0 + column * width, self.y0 + row * height
        return Box(left, top, left + width, top + height)


@dataclass(frozen=True, slots=True)
class ImageView:
    """A photograph as the encoder sees it.

    pixels (3, height, width) float32, normalised. `source_size` is (width, height) of the upright photograph,
    `covers` the rectangle of it that the cells tile, `orientation` the EXIF value that was applied.
    """

    pixels: Tensor
    source_size: tuple[int, int]
    covers: Box
    format: str
    orientation: int
