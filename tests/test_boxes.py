"""The threshold of word boxes is chosen by their overlap with annotated ones (evaluation/boxes.py)."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image

from corpus import DataError, Example, NamedBox
from evaluation.__main__ import main
from evaluation.boxes import THRESHOLDS, overlaps
from model import (
    Box,
    Caption,
    Captioner,
    CaptionNetwork,
    CaptionResult,
    Checkpoint,
    ImageConfig,
    PatchGrid,
    Timing,
    Word,
    WordMap,
    peak_box,
    prepare,
    read_config,
    save_checkpoint,
)


class BlobCaptioner:
    """Maps that have their peak on one patch, and a fifth of it on the 7 x 7 patches of an object."""

    image_config = ImageConfig(height=224, width=224)

    def explain(self, views, texts, **_):
        values = torch.zeros(14, 14, dtype=torch.float64)
        values[:7, :7] = 0.2
        values[3, 3] = 1.0
        values[:7, 7:9] = 0.07
        own = WordMap((values / values.sum()).flatten(), 1.0)
        words = tuple(Word(text, at, at + len(text), -1.0, 0.0, own, (0, 0, 1, 1)) for text, at in (("a", 0), ("dog", 2)))
        caption = Caption("a dog", words, -2.0, "stop")
        return [CaptionResult((caption,), PatchGrid(14, 14), Timing()) for _ in views]


def test_the_overlap_is_that_of_the_words_box_at_each_threshold(photo):
    boxes = (NamedBox("dog", Box(0, 0, 70, 70)), NamedBox("dog", Box(130, 130, 140, 140)), NamedBox("person", Box(0, 0, 9, 9)))
    example = Example(photo(140, 140), ("a dog",), "val", "1", objects=boxes)
    by_threshold = overlaps(BlobCaptioner(), [example])
    assert tuple(by_threshold) == THRESHOLDS
    assert by_threshold[0.05] == pytest.approx(70 * 70 / (70 * 90))
    assert by_threshold[0.15] == pytest.approx(1.0)
    assert by_threshold[0.5] == pytest.approx(1 / 49)


def test_data_without_named_boxes_is_an_error(photo):
    example = Example(photo(40, 40), ("a dog",), "val", "1", objects=(NamedBox("cat", Box(0, 0, 9, 9)),))
    with pytest.raises(DataError, match="names a boxed object"):
        overlaps(BlobCaptioner(), [example])


def test_the_command_writes_the_threshold(tiny_captioner, tmp_path, capsys):
    network = tiny_captioner.runtime
    save_checkpoint(tmp_path / "c", network.config, network.state_dict(), tiny_captioner.tokenizer, "")
    Image.new("RGB", (32, 24), "red").save(tmp_path / "1.png")
    row = {
        "image": "1.png",
        "split": "val",
        "captions": ["a dog runs"],
        "width": 32,
        "height": 24,
        "boxes": [[0, 0, 32, 24, "dog"]],
    }
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    flags = ["boxes", "--data", str(tmp_path / "data.jsonl"), "--checkpoint", str(tmp_path / "c"), "--json"]
    assert main(flags) == 0
    chosen = json.loads(capsys.readouterr().out)["box_threshold"]
    assert read_config(tmp_path / "c").maps.box_threshold == 0.5, "nothing is written without --write"
    assert main([*flags, "--write"]) == 0
    assert read_config(tmp_path / "c").maps.box_threshold == chosen < 0.5


@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_the_boxes_of_captions_have_the_threshold_of_their_checkpoint(tiny_captioner, photo, threshold):
    network = tiny_captioner.runtime
    config = dataclasses.replace(network.config, maps=dataclasses.replace(network.config.maps, box_threshold=threshold))
    other = CaptionNetwork(config)
    other.load_state_dict(network.state_dict())
    captioner = Captioner.from_checkpoint(Checkpoint(other, tiny_captioner.tokenizer, "# A tiny card"))
    view = prepare(photo(), captioner.image_config)
    (result,) = captioner.explain([view], ["a dog and a cat"])
    for word in result.captions[0].words:
        assert word.box == peak_box(word.map.values, result.grid, view.covers, threshold)
        assert word.box != peak_box(word.map.values, result.grid, view.covers, 1.1 - threshold), "it matters"
