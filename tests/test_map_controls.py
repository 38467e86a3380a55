"""Controls of maps (evaluation/map_controls.py)."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from corpus import DataError
from evaluation.__main__ import main
from evaluation.calibration import mean_ranks
from evaluation.map_controls import correlation, map_controls, with_random_weights
from model import Captioner, save_checkpoint


class Blobs:
    """A captioner whose maps are the brightness of the image, or always the same."""

    def __init__(self, captioner: Captioner, constant: bool) -> None:
        self._captioner, self._constant = captioner, constant
        self.image_config, self.config, self.tokenizer = captioner.image_config, captioner.config, captioner.tokenizer

    def explain(self, views, texts, **options):
        results = self._captioner.explain(views, texts, **options)
        changed = []
        for view, result in zip(views, results, strict=True):
            grid = result.grid
            light = (
                torch.nn.functional.adaptive_avg_pool2d(view.pixels.mean(0)[None], (grid.rows, grid.columns)).flatten() + 1.001
            )
            values = torch.arange(1.0, grid.num_patches + 1) if self._constant else light
            values = (values / values.sum()).double()
            words = tuple(
                dataclasses.replace(word, map=dataclasses.replace(word.map, values=values)) for word in result.captions[0].words
            )
            changed.append(dataclasses.replace(result, captions=(dataclasses.replace(result.captions[0], words=words),)))
        return changed


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((64, 48), 0) for _ in range(4)]


def test_maps_that_follow_the_image_are_mirrored_with_it(tiny_captioner, images):
    figures = map_controls(Blobs(tiny_captioner, constant=False), images, ["a red square"] * 4)
    assert figures["flip"] > 0.99
    assert figures["other_image"] < 0.6


def test_maps_that_ignore_the_image_are_exposed(tiny_captioner, images):
    figures = map_controls(Blobs(tiny_captioner, constant=True), images, ["a red square"] * 4)
    assert figures["flip"] < 0.9
    assert figures["other_image"] == pytest.approx(1)


def test_random_weights_are_those_of_no_training(tiny_captioner):
    one, two = with_random_weights(tiny_captioner), with_random_weights(tiny_captioner)
    trained = tiny_captioner.runtime.state_dict()
    for name, value in one.runtime.state_dict().items():
        assert torch.equal(value, two.runtime.state_dict()[name])
    name = "decoder.layers.0.mlp.0.weight"
    assert not torch.equal(one.runtime.state_dict()[name], trained[name])


def test_ranks_share_ties():
    assert mean_ranks(np.array([[3.0, 1.0], [3.0, 2.0]])).tolist() == [[3.5, 1.0], [3.5, 2.0]]
    assert correlation(np.ones((2, 2)), np.arange(4.0).reshape(2, 2)) == 0


def test_too_few_images_are_an_error(tiny_captioner, images):
    with pytest.raises(DataError, match="need two or more"):
        map_controls(tiny_captioner, images[:1], ["a"])


def test_the_command_prints_them(tiny_captioner, tmp_path, capsys):
    network = tiny_captioner.runtime
    save_checkpoint(tmp_path / "c", network.config, network.state_dict(), tiny_captioner.tokenizer, "")
    flags = ["--data", "scenes", "--scenes", "12", "--controls", "--checkpoint", str(tmp_path / "c"), "--json"]
    assert main(["maps", *flags]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"flip", "random_weights", "other_image", "attributes", "energy"} <= set(figures)


def test_several_methods_are_a_markdown_table(tiny_captioner, tmp_path, capsys):
    network = tiny_captioner.runtime
    save_checkpoint(tmp_path / "c", network.config, network.state_dict(), tiny_captioner.tokenizer, "")
    flags = ["--data", "scenes", "--scenes", "3", "--maps", "attention", "--maps", "norm", "--checkpoint", str(tmp_path / "c")]
    assert main(["maps", *flags]) == 0
    header, line, *rows = capsys.readouterr().out.strip().splitlines()
    assert header.startswith("| method | pointing | image center |")
    assert header.count("|") == line.count("|") == rows[0].count("|") == rows[1].count("|")
    assert [row.split("|")[1].strip() for row in rows] == ["`attention`", "`norm`"]
