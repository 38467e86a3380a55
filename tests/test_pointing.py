"""Pointing of maps, and selection of the heads that point."""

from __future__ import annotations

import json

import pytest
import torch

from corpus import Example, NamedBox, draw_scene
from evaluation import (
    HeadRows,
    class_words,
    find_class_mention,
    held_out_scenes,
    image_pointing,
    scene_pointing,
    select_heads,
)
from evaluation.__main__ import main
from evaluation.pointing import box_iou
from model import (
    Box,
    Caption,
    CaptionNetwork,
    CaptionResult,
    ImageConfig,
    MapConfig,
    PatchGrid,
    Timing,
    Word,
    WordMap,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from tests.networks import tiny_config


class PointingCaptioner:
    """A captioner whose map of each word is one patch: patch_of(image index, word)."""

    def __init__(self, patch_of) -> None:
        self._patch_of = patch_of
        self._num_images = 0
        self.maps = []  # map methods of the calls

    @property
    def image_config(self):
        return ImageConfig(height=224, width=224)

    def explain(self, views, texts, *, maps=None, **_):
        self.maps.append(maps)
        results = []
        for group in texts:
            captions = tuple(self._caption(text) for text in group)
            results.append(CaptionResult(captions, PatchGrid(14, 14), Timing()))
            self._num_images += 1
        return results

    def _caption(self, text: str) -> Caption:
        words, start = [], 0
        for name in text.split():
            start = text.index(name, start)
            values = torch.zeros(196, dtype=torch.float64)
            values[self._patch_of(self._num_images, name)] = 1.0
            words.append(Word(name, start, start + len(name), -1.0, 0.0, WordMap(values, 1.0), (0, 0, 1, 1)))
            start += len(name)
        return Caption(text, tuple(words), -1.0, "stop")


def test_maps_that_point_at_their_objects_score_one_and_swapped_maps_score_zero():
    scenes = [draw_scene(3, number) for number in range(200) if len(draw_scene(3, number).objects) >= 2][:30]
    scenes = [scene for scene in scenes if len({entry.shape for entry in scene.objects}) == len(scene.objects)]

    def patch(image: int, shape: str, other: bool = False) -> int:
        objects = scenes[image].objects
        named = next((index for index, entry in enumerate(objects) if entry.shape == shape), 0)
        mask = torch.from_numpy(objects[(named + 1) % len(objects) if other else named].mask)
        centers = mask[8::16, 8::16].flatten()
        return int(centers.nonzero()[0]) if centers.any() else int(mask.reshape(14, 16, 14, 16).float().mean((1, 3)).argmax())

    right = scene_pointing(PointingCaptioner(patch), scenes)
    wrong = scene_pointing(PointingCaptioner(lambda image, shape: patch(image, shape, other=True)), scenes)

    assert right.pointing > 0.9
    assert right.swapped > 0.95
    assert right.other < 0.05
    assert wrong.pointing < 0.05
    assert 0.01 <= right.area <= 0.12
    assert right.objects == sum(len(scene.objects) for scene in scenes)


def test_maps_of_real_images_are_judged_by_the_boxes_of_the_class_that_a_word_names(photo):
    image = photo(140, 140)
    boxes = (NamedBox("dog", Box(0, 0, 70, 70)), NamedBox("person", Box(70, 70, 140, 140)))
    example = Example(image, ("a dog and a woman", "something else"), "val", "1", objects=boxes)
    right = image_pointing(PointingCaptioner(lambda _, name: 0 if name == "dog" else 195), [example])
    wrong = image_pointing(PointingCaptioner(lambda _, name: 195 if name == "dog" else 0), [example])

    assert (right.objects, right.pointing, right.swapped, right.swaps) == (2, 1.0, 1.0, 2)
    assert (wrong.pointing, wrong.other, wrong.swapped) == (0.0, 1.0, 0.0)
    assert right.area == pytest.approx(0.25, abs=0.08)  # patches that a box overlaps
    assert (right.strict_pointing, wrong.strict_pointing) == (1.0, 0.0)
    # All of the map is on one patch of the object, which covers a quarter of the image; the box of every word is one pixel.
    assert right.energy == pytest.approx(4)
    assert wrong.energy == 0
    assert right.patch_auroc > 0.5 > wrong.patch_auroc
    assert right.box_iou == pytest.approx((1 / 70**2 + 0) / 2)
    assert "women" in class_words("person")
    assert find_class_mention("person", "a woman and a man") == 2
    assert find_class_mention("fire hydrant", "A red Fire Hydrant") == 11
    assert find_class_mention("dog", "a doghouse") is None


def test_pointing_by_the_size_of_objects_and_its_interval_over_images(photo):
    boxes = (NamedBox("dog", Box(0, 0, 20, 20)), NamedBox("person", Box(70, 70, 140, 140)))
    examples = [Example(photo(140, 140), ("a dog and a woman",), "val", str(number), objects=boxes) for number in range(40)]
    # The large object is always hit, the small one, 2 % of the image, in every fourth image.
    captioner = PointingCaptioner(lambda image, name: 195 if name == "woman" or image % 4 else 0)
    figures = image_pointing(captioner, examples)
    assert figures.by_size == {
        "below 3 %": {"objects": 40, "pointing": 0.25, "center": 0.0},
        "above 10 %": {"objects": 40, "pointing": 1.0, "center": 1.0},
    }
    low, high = figures.pointing_interval
    # An image has one hit of two, or two: the standard error of the mean of 40 is that of a quarter.
    half = 1.96 * (0.25 * 0.75 / 40) ** 0.5 / 2
    assert low == pytest.approx(0.625 - half, abs=0.015)
    assert high == pytest.approx(0.625 + half, abs=0.015)


def test_the_overlap_of_boxes():
    assert box_iou(Box(0, 0, 2, 2), Box(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box_iou(Box(0, 0, 2, 2), Box(0, 0, 2, 2)) == 1
    assert box_iou(Box(0, 0, 1, 1), Box(2, 2, 3, 3)) == 0
    assert box_iou(Box(0, 0, 0, 0), Box(0, 0, 0, 0)) == 0


def test_heads_that_point_at_objects_are_selected():
    """Head 1 of layer 0 and head 0 of layer 1 attend to one half of the objects each; the other heads are random."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.zeros(40, 12)
    shares[range(40), torch.randint(12, (40,), generator=generator)] = 1.0
    rows = torch.rand(4, 40, 12, generator=generator) * 0.1
    rows[1, :20] += shares[:20]
    rows[2, 20:] += shares[20:]
    tokens_of = tuple((word,) for word in range(40))
    selected, (score,) = select_heads([HeadRows(rows, tokens_of, shares > 0, torch.ones(40), 2)], MapConfig())
    assert selected == [(0, 1), (1, 0)]
    assert score == 1.0


def test_the_heads_command_writes_its_selection_to_the_checkpoint(tmp_path, tokenizer, capsys):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "c", config, CaptionNetwork(config).state_dict(), tokenizer, "")
    arguments = ["heads", "--checkpoint", str(tmp_path / "c"), "--data", "scenes", "--scenes", "4", "--write", "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = read_config(tmp_path / "c").maps.heads
    assert [list(pair) for pair in written] == figures["heads"]
    assert len(figures["scenes"]["single_heads"]) == 4
    assert load_checkpoint(tmp_path / "c").config.maps.heads == written


def test_the_map_method_of_the_command_line_reaches_the_captioner(photo):
    captioner = PointingCaptioner(lambda _, name: 0)
    example = Example(photo(140, 140), ("a dog",), "val", "1", objects=(NamedBox("dog", Box(0, 0, 70, 70)),))
    image_pointing(captioner, [example], maps="attention")
    scene_pointing(captioner, held_out_scenes(1), maps="gradient")
    assert captioner.maps == ["attention", "gradient"]
