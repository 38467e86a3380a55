"""Benchmarks run and return complete results; equality of golden results is judged."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from benchmarks import kendall_tau_c, measure_checkpoint, measure_streaming, resident_megabytes
from benchmarks.__main__ import main
from evaluation.__main__ import make_parser
from model import CaptionNetwork, save_checkpoint
from tests.networks import tiny_config


def test_kendall_tau_c_is_one_for_equal_order_and_minus_one_for_reversed_order():
    assert kendall_tau_c(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 1, 2, 2])) == 1.0
    assert kendall_tau_c(np.array([0.4, 0.3, 0.2, 0.1]), np.array([1, 1, 2, 2])) == -1.0
    with pytest.raises(ValueError, match="at least two different values"):
        kendall_tau_c(np.ones(3), np.array([1, 2, 3]))


def test_streaming_is_measured_and_leaves_no_files(tmp_path):
    figures = measure_streaming(200, tmp_path)
    assert figures["samples"] == 200
    assert len(figures["memory_mb_after_each_tenth"]) == 10
    assert figures["speed_relative_to_tarfile"]["median"] > 0
    assert not list(tmp_path.iterdir())
    assert resident_megabytes() > 10


def test_streams_print_one_json_object(tmp_path, capsys):
    assert main(["streams", "--samples", "10", "--folder", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["samples"] == 10


def test_a_missing_folder_of_golden_results_is_bad_data(tmp_path, capsys):
    assert main(["golden", str(tmp_path / "none")]) == 1
    assert "name the folder of the recorded results" in capsys.readouterr().err


def test_the_cost_of_scoring_is_measured_on_as_many_captions_as_requested(tmp_path, capsys):
    texts = [
        f"a {color} {animal} on the {ground}"
        for color in ("red", "tan")
        for animal in ("dog", "cat")
        for ground in ("hill", "bed")
    ]
    annotations = [{"image_id": number // 2, "id": number, "caption": text} for number, text in enumerate(texts)]
    with gzip.open(tmp_path / "captions_val2017.json.gz", "wt") as file:
        json.dump({"annotations": annotations}, file)
    assert main(["golden", str(tmp_path), "--candidates", "30", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["candidates"] == 30
    assert list(figures["seconds"]) == ["tokens", "reference_tokens", "CIDEr", "BLEU", "ROUGE-L"]
    assert all(seconds > 0 for seconds in figures["seconds"].values())
    assert figures["peak_mb"] >= figures["peak_mb_before"] > 10


def test_speed_of_a_checkpoint_has_every_setting_with_and_without_maps(tiny_captioner):
    figures = measure_checkpoint(tiny_captioner, turns=1)
    settings = [name for name in figures if name.startswith("batch")]
    assert settings == ["batch 1, greedy", "batch 1, beam 3", "batch 8, greedy", "batch 8, beam 3"]
    for name in settings:
        rates = figures[name]["images_per_second"]
        assert list(rates) == ["maps_and_reliance", "maps", "captions_only"]
        assert all(rate["min"] <= rate["median"] <= rate["max"] for rate in rates.values())


def test_evaluation_speed_is_the_speed_command_of_benchmarks(tmp_path, tokenizer, capsys):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "c", config, CaptionNetwork(config).state_dict(), tokenizer, "")
    arguments = ["speed", "--checkpoint", str(tmp_path / "c"), "--device", "cpu", "--dtype", "float32", "--turns", "1"]
    options = make_parser().parse_args(arguments)
    assert "batch 8, beam 3" in options.run(options)
    assert main(arguments) == 0
    assert "images_per_second" in capsys.readouterr().out
