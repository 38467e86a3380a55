"""Coordinates: the patch grid, rectangles of an image, the prepared view of an image.

All are pixels of the upright image (EXIF orientation applied), origin top left, `[x0, y0, x1, y1)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Rows and columns of patches, row-major; row 0 is the top."""

    rows: int
    columns: int

    @property
    def num_patches(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright image."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        return max(self.x1 - self.x0, 0.0) * max(self.y1 - self.y0, 0.0)

    def inside(self, width: int, height: int) -> Box:
        """Return the part of this rectangle inside an image of that size; its area is 0 if there is none."""
        return Box(max(0, self.x0), max(0, self.y0), min(width, self.x1), min(height, self.y1))

    def enlarged(self, share: float) -> Box:
        """Return this rectangle with a share of its width on the left and right, and of its height above and below."""
        across, down = share * (self.x1 - self.x0), share * (self.y1 - self.y0)
        return Box(self.x0 - across, self.y0 - down, self.x1 + across, self.y1 + down)

    def cell(self, grid: PatchGrid, index: int) -> Box:
        """Return the part of this rectangle that patch `index` covers, when `grid` tiles it evenly."""
        row, column = divmod(index, grid.columns)
        width, height = (self.x1 - self.x0) / grid.columns, (self.y1 - self.y0) / grid.rows
        left, top = self.x0 + column * width, self.y0 + row * height
        return Box(left, top, left + width, top + height)


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image, or a region of it, as the encoder reads it.

    pixels (3, height, width) float32, normalized. `source_size` is (width, height) of the whole upright image,
    `covers` the rectangle of it that the patches tile, `orientation` the EXIF value that was applied, `is_truncated` whether a
    part of the file could not be decoded.
    """

    pixels: Tensor
    source_size: tuple[int, int]
    covers: Box
    format: str
    orientation: int
    is_truncated: bool = False
