"""From attention rows to a word's map, and the figures computed from a map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from model import Box, PatchGrid, WordMap, peak_box, resample_map, word_map

GRID = PatchGrid(3, 4)
IMAGE = Box(0, 0, 400, 300)


def delta(*patches: int, count: int = 12) -> torch.Tensor:
    values = torch.zeros(count, dtype=torch.float64)
    values[list(patches)] = 1 / len(patches)
    return values


def test_a_map_is_the_mean_of_its_rows_divided_by_its_sum():
    rows = torch.tensor([[0.2, 0.1, 0.1], [0.0, 0.3, 0.1]])
    merged = word_map(rows)
    assert merged.image_mass == pytest.approx(0.4)
    assert merged.values.tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_a_word_without_attention_on_the_image_has_a_uniform_map():
    merged = word_map(torch.full((2, 12), 1e-9))
    assert merged.values.tolist() == pytest.approx([1 / 12] * 12)
    assert merged.image_mass < 1e-6


def test_focus_is_one_for_a_single_patch_and_zero_for_a_uniform_map():
    assert WordMap(delta(5), 1.0).focus == pytest.approx(1.0)
    assert WordMap(torch.full((12,), 1 / 12, dtype=torch.float64), 1.0).focus == pytest.approx(0.0, abs=1e-12)
    assert WordMap(torch.ones(1, dtype=torch.float64), 1.0).focus == 1.0


def test_a_box_bounds_the_connected_patches_above_half_the_peak():
    values = torch.tensor([0, 0, 0, 0, 0, 0.2, 0.3, 0, 0, 0, 0, 0.18], dtype=torch.float64)
    assert peak_box(values, GRID, IMAGE) == (100, 100, 300, 200), "the patch in the corner touches only at a corner"
    assert peak_box(delta(11), GRID, IMAGE) == (300, 200, 400, 300)
    assert peak_box(torch.full((12,), 1 / 12), GRID, IMAGE) == (0, 0, 400, 300)


def test_a_box_does_not_wrap_around_the_edge_of_the_image():
    values = torch.zeros(12)
    values[[3, 4]] = 0.5  # the end of row 0 and the start of row 1
    assert peak_box(values, GRID, IMAGE) == (300, 0, 400, 100)


def test_a_lower_threshold_gives_a_larger_box():
    values = torch.tensor([0.05, 0.1, 0.3, 0.4] + [0.0] * 8, dtype=torch.float64)
    boxes = [peak_box(values, GRID, IMAGE, threshold) for threshold in (0.8, 0.5, 0.2, 0.1)]
    assert boxes == [(300, 0, 400, 100), (200, 0, 400, 100), (100, 0, 400, 100), (0, 0, 400, 100)]


def test_a_box_bounds_the_component_that_scipy_labels():
    rng = torch.Generator().manual_seed(0)
    for rows, columns in [(1, 1), (1, 9), (9, 1), (7, 5), (14, 14), (24, 24)] * 20:
        values = torch.rand(rows * columns, generator=rng) ** 2
        labels, _ = label((values > values.max() / 2).reshape(rows, columns).numpy())  # 4-connected
        down, across = (labels == labels.flat[int(values.argmax())]).nonzero()
        box = peak_box(values, PatchGrid(rows, columns), Box(0, 0, columns, rows))
        assert box == (across.min(), down.min(), across.max() + 1, down.max() + 1)


def propagated_component(values: list[float], grid: PatchGrid) -> set[int]:
    """Return the patches above half the peak that are 4-connected to it, by propagating the smallest label: no flood fill."""
    peak = values.index(max(values))
    labels = {index: index for index, value in enumerate(values) if value > values[peak] / 2}

    def distance(one: int, other: int) -> int:
        return abs(one // grid.columns - other // grid.columns) + abs(one % grid.columns - other % grid.columns)

    pairs = [(one, other) for one in labels for other in labels if distance(one, other) == 1]
    is_stable = False
    while not is_stable:
        is_stable = True
        for one, other in pairs:
            if labels[one] > labels[other]:
                labels[one], is_stable = labels[other], False
    return {index for index, label in labels.items() if label == labels[peak]}


def random_maps(count: int):
    """Yield maps of several grids: flat ones with equal values, noise, and one or two peaks on noise."""
    rng = torch.Generator().manual_seed(11)
    grids = [(1, 1), (1, 8), (6, 1), (5, 4), (9, 9), (12, 7)]
    for number in range(count):
        rows, columns = grids[number % len(grids)]
        down, across = torch.arange(rows)[:, None], torch.arange(columns)[None]
        values = torch.rand(rows, columns, generator=rng, dtype=torch.float64)
        kind = number // len(grids) % 4
        if kind == 0:  # flat: many equal values, and islands below half
            values = 1 - 0.6 * (values < 0.4).double()
        elif kind > 1:
            for _ in range(kind - 1):
                row, column = (float(torch.rand(1, generator=rng)) * size for size in (rows, columns))
                values = 0.3 * values + torch.exp(-((down - row) ** 2 + (across - column) ** 2) / 3)
        yield (values / values.sum()).flatten(), PatchGrid(rows, columns)


def test_a_box_bounds_the_component_that_label_propagation_gives():
    sizes = set()
    for values, grid in random_maps(200):
        component = propagated_component(values.tolist(), grid)
        rows, columns = [index // grid.columns for index in component], [index % grid.columns for index in component]
        covers = Box(0, 0, 10 * grid.columns, 20 * grid.rows)
        expected = (10 * min(columns), 20 * min(rows), 10 * (max(columns) + 1), 20 * (max(rows) + 1))
        assert peak_box(values, grid, covers) == expected
        sizes.add(len(component))
    assert len(sizes) > 10, "components of many sizes"


def test_a_box_is_inside_what_the_patches_cover_and_rounded_outwards():
    assert peak_box(delta(0, count=9), PatchGrid(3, 3), Box(10, 20, 110, 120)) == (10, 20, 44, 54)
    assert peak_box(delta(0, count=9), PatchGrid(3, 3), Box(0, 0, 9, 9)) == (0, 0, 3, 3)


def test_resampling_to_the_same_grid_changes_nothing():
    values = torch.rand(12, dtype=torch.float64)
    values /= values.sum()
    torch.testing.assert_close(resample_map(values, GRID, IMAGE, (400, 300), GRID), values)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 11))
def test_a_resampled_map_is_a_distribution_with_the_same_peak(columns, rows, patch):
    resampled = resample_map(delta(patch), GRID, IMAGE, (400, 300), PatchGrid(rows, columns))
    assert resampled.sum().item() == pytest.approx(1.0)
    assert (resampled >= 0).all()
    if rows >= 6 and columns >= 8:
        row, column = divmod(int(resampled.argmax()), columns)
        x, y = (column + 0.5) / columns * 400, (row + 0.5) / rows * 300
        box = IMAGE.cell(GRID, patch)
        assert box.x0 <= x < box.x1
        assert box.y0 <= y < box.y1


def test_a_resampled_map_is_zero_outside_what_the_patches_cover():
    covers = Box(100, 0, 300, 300)
    resampled = resample_map(torch.full((12,), 1 / 12), GRID, covers, (400, 300), PatchGrid(3, 8)).reshape(3, 8)
    assert resampled[:, :2].sum() == 0
    assert resampled[:, 6:].sum() == 0
    assert resampled.sum().item() == pytest.approx(1.0)


def test_patches_tile_their_rectangle_row_by_row():
    assert IMAGE.cell(GRID, 0) == Box(0, 0, 100, 100)
    assert IMAGE.cell(GRID, 6) == Box(200, 100, 300, 200)
    assert sum(IMAGE.cell(GRID, index).area for index in range(12)) == IMAGE.area
