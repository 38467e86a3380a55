"""From attention rows to a word's map, and what is read off a map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Box, PatchGrid, WordMap, peak_box, resample_map, word_map

GRID = PatchGrid(3, 4)
WHOLE = Box(0, 0, 400, 300)


def delta(*cells: int, count: int = 12) -> torch.Tensor:
    values = torch.zeros(count, dtype=torch.float64)
    values[list(cells)] = 1 / len(cells)
    return values


def test_a_map_is_the_mean_of_its_rows_divided_by_its_sum():
    rows = torch.tensor([[0.2, 0.1, 0.1], [0.0, 0.3, 0.1]])
    found = word_map(rows)
    assert found.image_mass == pytest.approx(0.4)
    assert found.values.tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_a_word_that_looked_nowhere_has_a_uniform_map():
    found = word_map(torch.full((2, 12), 1e-9))
    assert found.values.tolist() == pytest.approx([1 / 12] * 12)
    assert found.image_mass < 1e-6


def test_focus_is_one_for_a_cell_and_zero_for_a_uniform_map():
    assert WordMap(delta(5), 1.0).focus == pytest.approx(1.0)
    assert WordMap(torch.full((12,), 1 / 12, dtype=torch.float64), 1.0).focus == pytest.approx(0.0, abs=1e-12)
    assert WordMap(torch.ones(1, dtype=torch.float64), 1.0).focus == 1.0


def test_a_box_holds_the_cells_above_half_the_peak_that_hang_together():
    values = torch.tensor([0, 0, 0, 0, 0, 0.2, 0.3, 0, 0, 0, 0, 0.18], dtype=torch.float64)
    assert peak_box(values, GRID, WHOLE) == (100, 100, 300, 200), "the corner cell touches only by its corner"
    assert peak_box(delta(11), GRID, WHOLE) == (300, 200, 400, 300)
    assert peak_box(torch.full((12,), 1 / 12), GRID, WHOLE) == (0, 0, 400, 300)


def test_a_box_does_not_wrap_around_the_edge_of_the_picture():
    values = torch.zeros(12)
    values[[3, 4]] = 0.5  # the end of row 0 and the beginning of row 1
    assert peak_box(values, GRID, WHOLE) == (300, 0, 400, 100)


def test_a_box_is_that_of_the_component_that_scipy_finds():
    from scipy.ndimage import label

    dice = torch.Generator().manual_seed(0)
    for rows, columns in [(1, 1), (1, 9), (9, 1), (7, 5), (14, 14), (24, 24)] * 20:
        values = torch.rand(rows * columns, generator=dice) ** 2
        numbered, _ = label((values > values.max() / 2).reshape(rows, columns).numpy())  # 4-connected
        down, across = (numbered == numbered.flat[int(values.argmax())]).nonzero()
        found = peak_box(values, PatchGrid(rows, columns), Box(0, 0, columns, rows))
        assert found == (across.min(), down.min(), across.max() + 1, down.max() + 1)


def test_a_box_lies_in_what_the_cells_cover_and_is_rounded_outwards():
    assert peak_box(delta(0, count=9), PatchGrid(3, 3), Box(10, 20, 110, 120)) == (10, 20, 44, 54)
    assert peak_box(delta(0, count=9), PatchGrid(3, 3), Box(0, 0, 9, 9)) == (0, 0, 3, 3)


def test_resampling_to_the_same_grid_changes_nothing():
    values = torch.rand(12, dtype=torch.float64)
    values /= values.sum()
    torch.testing.assert_close(resample_map(values, GRID, WHOLE, (400, 300), GRID), values)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 11))
def test_a_resampled_map_is_a_map_and_peaks_where_it_did(columns, rows, cell):
    found = resample_map(delta(cell), GRID, WHOLE, (400, 300), PatchGrid(rows, columns))
    assert found.sum().item() == pytest.approx(1.0)
    assert (found >= 0).all()
    if rows >= 6 and columns >= 8:
        row, column = divmod(int(found.argmax()), columns)
        x, y = (column + 0.5) / columns * 400, (row + 0.5) / rows * 300
        box = WHOLE.cell(GRID, cell)
        assert box.x0 <= x < box.x1
        assert box.y0 <= y < box.y1


def test_outside_of_what_the_cells_cover_a_resampled_map_is_zero():
    covers = Box(100, 0, 300, 300)
    found = resample_map(torch.full((12,), 1 / 12), GRID, covers, (400, 300), PatchGrid(3, 8)).reshape(3, 8)
    assert found[:, :2].sum() == 0
    assert found[:, 6:].sum() == 0
    assert found.sum().item() == pytest.approx(1.0)


def test_cells_tile_their_rectangle_row_by_row():
    assert WHOLE.cell(GRID, 0) == Box(0, 0, 100, 100)
    assert WHOLE.cell(GRID, 6) == Box(200, 100, 300, 200)
    assert sum(WHOLE.cell(GRID, index).area for index in range(12)) == WHOLE.area
