"""Regions of words and the loss on attention outside of them (training/regions.py), and batches that carry them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import random

import pytest
import torch

from corpus import DataError, draw_scene, open_dataset
from model import CaptionNetwork, MapConfig, PatchGrid
from tests.networks import redraw, tiny_config
from training import RegionFinder, TextData, TrainingData, predict, read_texts
from training.regions import (
    _COVERAGE,
    _MIN_ATTENTION,
    COCO_CATEGORIES,
    DetectedBox,
    RegionBatch,
    attributes_start,
    collate_regions,
    read_detections,
    region_loss,
)

GRID = PatchGrid(3, 4)


def test_attributes_before_a_noun_share_its_region():
    text = "a man on a large red bus"
    assert text[attributes_start(text, text.index("bus")) :] == "large red bus"
    assert attributes_start(text, text.index("man")) == text.index("man")


def test_a_named_class_has_the_patches_of_its_boxes(tokenizer):
    boxes = {
        "1": [
            DetectedBox("dog", 0, 0, 0.5, 1 / 3, 0.9),
            DetectedBox("cat", 0.5, 0, 1, 1, 0.9),
            DetectedBox("dog", 0, 0, 1, 1, 0.2),
        ]
    }
    finder = RegionFinder(GRID, tokenizer, boxes)
    entry = dataclasses.replace(
        open_dataset("scenes:1").split("train")[0], image_id="1", scene=None, captions=("two small dogs run", "a bird")
    )
    first, second = finder.regions(entry)
    assert second == []
    tokens = tokenizer.encode("two small dogs run")
    named = {tokenizer.decode([tokens[token]]).strip() for token, _ in first}
    assert "".join(sorted(named))
    assert not {"run", "two"} & named
    for _, patches in first:
        assert patches.reshape(3, 4).nonzero().tolist() == [[0, 0], [0, 1]]


def test_a_box_smaller_than_a_patch_has_the_patch_it_covers_most(tokenizer):
    finder = RegionFinder(GRID, tokenizer, {"1": [DetectedBox("dog", 0.30, 0.4, 0.35, 0.5, 0.9)]})
    entry = dataclasses.replace(open_dataset("scenes:1").split("train")[0], image_id="1", scene=None, captions=("a dog",))
    ((_, patches),) = finder.regions(entry)[0][:1]
    assert patches.reshape(3, 4).nonzero().tolist() == [[1, 1]]


def test_shapes_of_scenes_have_their_mask(tokenizer):
    grid = PatchGrid(14, 14)
    finder = RegionFinder(grid, tokenizer, {})
    for entry in open_dataset("scenes:5").split("train"):
        scene = draw_scene(*entry.scene)
        for text, regions in zip(entry.captions, finder.regions(entry), strict=True):
            assert regions, text
            spelled = tokenizer.encode(text)
            for token, patches in regions:
                centers = [mask for mask in (entry.mask for entry in scene.objects) if mask.any()]
                rows, columns = divmod(int(patches.float().argmax()), 14)
                assert any(mask[rows * 16 : rows * 16 + 16, columns * 16 : columns * 16 + 16].any() for mask in centers)
                assert token < len(spelled)


def test_the_loss_is_minus_the_log_of_the_share_inside_and_of_how_evenly_it_is_spread():
    weights = torch.zeros(
        2, 2, 3, 1 + 12 + 1, dtype=torch.float64
    )  # captions, heads, tokens, keys: a prefix token and a null key
    weights[1, 0, 2, 1:13] = 1 / 16
    weights[1, 1, 2, 3] = 1
    patches = torch.zeros(1, 12, dtype=torch.bool)
    patches[0, [2, 5]] = True
    regions = RegionBatch(torch.tensor([1]), torch.tensor([2]), patches)
    loss = region_loss([weights], regions, MapConfig(heads=((0, 0),)), 1)
    assert loss.item() == pytest.approx(-torch.tensor(2 / 16).log().item())
    one_of_two = region_loss([weights], regions, MapConfig(heads=((0, 1),)), 1).item()
    assert one_of_two == pytest.approx(_COVERAGE * (-math.log(2) - math.log(_MIN_ATTENTION) / 2)), "inside, but a dot"
    weights[1, 1, 2, [3, 6]] = torch.tensor([0.9, 0.1], dtype=torch.float64)
    uneven = region_loss([weights], regions, MapConfig(heads=((0, 1),)), 1).item()
    assert uneven == pytest.approx(_COVERAGE * -math.log(2 * math.sqrt(0.9 * 0.1)))


def test_a_step_on_the_loss_moves_attention_into_the_region(tokenizer):
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size)).double()
    redraw(network, 1)
    data = training_data(tokenizer, network)
    batch = data.batch([0, 1, 2, 3], random.Random(0))
    assert len(batch.regions.rows) > 4
    before = None
    optimizer = torch.optim.Adam(network.decoder.parameters(), lr=3e-3)
    for _ in range(25):
        features = network.encode(batch.inputs[0].double())
        *_, loss = predict(network, features, batch)
        before = before or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8 * before


def test_images_without_features_have_no_region(tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size))
    data = training_data(tokenizer, network, unconditional_ratio=0.5)
    batches = [data.batch([0, 1, 2, 3], random.Random(seed)) for seed in range(8)]
    for batch in batches:
        images = {batch.image_of[row] for row in batch.regions.rows.tolist()}
        assert images.isdisjoint(batch.is_dropped.nonzero()[:, 0].tolist())
    assert 0 < sum(int(batch.is_dropped.sum()) for batch in batches) < 32
    assert any(len(batch.regions.rows) for batch in batches)


def test_a_token_that_was_cut_has_no_region(tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size))
    batch = training_data(tokenizer, network, max_caption_tokens=3).batch([0, 1], random.Random(0))
    assert batch.regions.positions.max() < batch.tokens.size(1) - 1


def test_no_region_is_a_loss_of_zero():
    empty = collate_regions([[], []], 0, 12)
    assert region_loss([torch.rand(2, 2, 3, 13)], empty, MapConfig(), 0).item() == 0


def test_detections_are_read_by_category(tmp_path):
    record = {"image": "x", "boxes": [[0, 0, 0.5, 1, 17, 0.8], [0, 0, 1, 1, 90, 0.3]]}
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write(json.dumps(record) + "\n")
    assert [box.name for box in read_detections(tmp_path / "d.jsonl.gz")["x"]] == ["cat", "toothbrush"]
    (tmp_path / "bad.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(DataError, match="no detections that can be read"):
        read_detections(tmp_path / "bad.jsonl")


def test_category_ids_are_those_of_coco():
    assert len(COCO_CATEGORIES) == 90
    assert {COCO_CATEGORIES[number - 1] for number in (1, 44, 62, 82)} == {"person", "bottle", "chair", "refrigerator"}


def test_texts_are_learned_without_an_image(tokenizer, tmp_path):
    (tmp_path / "texts.txt").write_text("A dog runs.\n\n a cat \na red square\n", encoding="utf-8")
    texts = read_texts(tmp_path / "texts.txt")
    assert texts == ["a dog runs", "a cat", "a red square"]
    network = CaptionNetwork(tiny_config(tokenizer.size)).double()
    redraw(network, 2)
    data = TextData(texts, tokenizer, network.config, 40, "en")
    batches = data.plan(0, 1, 2)
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2]
    batch = data.batch([0, 1, 2], random.Random(0))
    assert batch.num_images == 0
    logits, targets, _ = predict(network, network.unconditional(), batch)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()
    assert network.no_image.grad.abs().sum() > 0
    assert all(value.grad is None for value in network.encoder.parameters())
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="one per line"):
        read_texts(tmp_path / "empty.txt")


def training_data(tokenizer, network, **options: int) -> TrainingData:
    entries = open_dataset("scenes:4").split("train")
    settings = {"num_views": 1, "captions_per_image": 2, "max_caption_tokens": 60} | options
    finder = RegionFinder(network.grid, tokenizer, {})
    return TrainingData(entries, tokenizer, network.config, None, finder=finder, **settings)
