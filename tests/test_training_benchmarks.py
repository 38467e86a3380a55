"""The benchmarks of training: the rows of the ablation, loading on two ranks, and the comparison with transformers' Trainer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation import ROWS, run_ablation
from benchmarks.loading import measure_loading
from benchmarks.training_speed import compare_training_speed
from tests.runs import write_images
from training import parse_arguments


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_is_a_valid_run(row):
    flags = ROWS[row].split()
    config = parse_arguments(["--data", "scenes", "--run", "x", *flags])
    base = parse_arguments(["--data", "scenes", "--run", "x"])
    assert (config == base) is (not flags)


def test_an_ablation_compares_the_captions_of_its_runs(tmp_path):
    folder, captions = tmp_path / "runs", {f"{n}": f"a dog number {n} on the grass" for n in range(10, 12)}
    rows = [{"image_id": n, "caption": text} for n, text in captions.items()]
    data = write_images(tmp_path / "data", 12)
    text = data.read_text().splitlines()
    data.write_text(
        "\n".join([text[0] + ",split", *(f"{line},{'val' if n > 9 else 'train'}" for n, line in enumerate(text[1:]))])
    )
    for name, words in (("baseline", "a cat"), ("word-presence", None)):
        for seed in (0, 1):
            run = folder / f"{name}-{seed}"
            run.mkdir(parents=True)
            (run / "finished").touch()
            (run / "validation_captions.json").write_text(
                json.dumps([row | ({"caption": words} if words else {}) for row in rows])
            )
    figures = run_ablation(str(data), folder, 10, [0, 1], ["baseline", "word presence"])
    assert figures["baseline"]["CIDEr"] == 0
    assert figures["baseline"]["distinct"] == 50
    difference, _, interval = figures["word presence"]["difference"].partition(" ")
    assert float(difference) == pytest.approx(figures["word presence"]["CIDEr"], abs=0.1)
    low, high = (float(value) for value in interval.strip("()").split(" to "))
    assert 0 < low <= float(difference) <= high
    assert np.isfinite(high)


@pytest.mark.slow
def test_two_ranks_load_every_sample_once(tmp_path: Path):
    figures = measure_loading(150, 2, 1, tmp_path)
    assert figures["equal"]
    for epoch in ("epoch 1", "epoch 2"):
        assert figures[epoch]["different samples"] == 150
        assert figures[epoch]["loaded twice"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers
def test_the_peer_of_the_training_benchmark_has_the_same_size():
    figures = compare_training_speed(2, 1, 1, "float32", 2)
    own, peer = map(float, figures["parameters, millions"].split(" and "))
    assert abs(own - peer) < 0.02 * own
    assert all(float(figures[name].split()[0]) > 0 for name in figures if name.startswith("images per second"))
