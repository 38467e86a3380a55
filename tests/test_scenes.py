"""Drawn scenes: exact captions, exact masks, and a judge that catches every kind of mistake."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from corpus import SCENE_SPLITS, UNSEEN_PAIRS, captions_of, draw_scene, judge, read_data
from corpus.__main__ import main
from corpus.scene_captions import COLUMNS, PLACES, ROWS, is_true, lies_in
from corpus.scenes import COLOURS, SHAPES, _outline


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(7, number) for number in range(150)]


def test_a_scene_is_the_same_every_time_and_another_one_for_another_number():
    first, again, other = draw_scene(1, 5), draw_scene(1, 5), draw_scene(1, 6)
    assert first.paint().tobytes() == again.paint().tobytes()
    assert [entry.pair for entry in first.objects] == [entry.pair for entry in again.objects]
    assert first.paint().tobytes() != other.paint().tobytes()


def test_objects_are_as_promised(scenes):
    counts = Counter(len(scene.objects) for scene in scenes)
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 20
    for scene in scenes:
        assert scene.paint().size == (224, 224)
        assert len({entry.pair for entry in scene.objects}) == len(scene.objects)
        for entry in scene.objects:
            assert 0.01 <= entry.area <= 0.12
    assert {entry.shape for scene in scenes for entry in scene.objects} == set(SHAPES)
    assert {entry.colour for scene in scenes for entry in scene.objects} == set(COLOURS)
    assert {entry.size for scene in scenes for entry in scene.objects} == {"small", "medium", "large"}


def test_nothing_is_covered_by_more_than_a_fifth(scenes):
    for scene in scenes:
        for layer in scene.layers:
            whole = np.asarray(_outline(layer.shape, layer.centre, layer.side).resize((224, 224))) >= 128
            seen = next(entry for entry in scene.objects if entry.pair == (layer.colour, layer.shape))
            assert seen.mask.sum() >= 0.78 * whole.sum()


def test_a_mask_is_where_its_colour_is(scenes):
    for scene in scenes[:40]:
        picture = np.asarray(scene.paint()).astype(int)
        for entry in scene.objects:
            inside = picture[entry.mask]
            near = np.abs(inside - np.array(COLOURS[entry.colour])).max(axis=1) <= 12
            assert near.mean() > 0.8, (entry.colour, entry.shape)  # the rest are smooth edges


def test_masks_of_a_scene_do_not_overlap(scenes):
    for scene in scenes:
        assert sum(entry.mask.astype(int) for entry in scene.objects).max() == 1


def test_held_out_pairs_occur_only_where_they_are_asked_for(scenes):
    assert len(UNSEEN_PAIRS) == 6
    assert not any(scene.unseen for scene in scenes)
    assert all(draw_scene(7, number, unseen=True).unseen for number in range(30))
    assert {colour for colour, _ in UNSEEN_PAIRS} < set(COLOURS)


def test_splits_draw_from_series_that_never_meet():
    assert len(set(SCENE_SPLITS.values())) == 3


def test_every_caption_of_a_scene_is_right_and_names_its_objects(scenes):
    dice = random.Random(0)
    for scene in scenes:
        assert not any("in the" in caption.text for caption in captions_of(scene, dice))
        for caption in captions_of(scene, dice, places=True):
            assert judge(caption.text, scene).right, caption.text
            named = {word.object: caption.text[word.start : word.end] for word in caption.words}
            assert named == {index: entry.shape for index, entry in enumerate(scene.objects)}


def test_other_true_wordings_are_right_too(scenes):
    scene = next(scene for scene in scenes if len(scene.objects) == 2)
    text = captions_of(scene, random.Random(0))[0].text
    assert judge(f"There is {text}.", scene).right
    for one, two in itertools.permutations(scene.objects):
        for name in ("left of", "right of", "above", "below"):
            said = f"a {one.colour} {one.shape} {name} the {two.colour} {two.shape}"
            assert judge(said, scene).right == is_true(name, one, two), said
    assert judge(text.replace(" a ", " the ").upper(), scene).right


def test_places_are_said_of_training_pictures_and_false_ones_are_caught(scenes):
    said = 0
    for scene in scenes:
        for caption in captions_of(scene, random.Random(1), places=True)[2:]:
            for words in re.findall(r"(\w+) (\w+) in the (\w+) (\w+)", caption.text):
                colour, shape, row, column = words
                entry = next(entry for entry in scene.objects if entry.pair == (colour, shape))
                said += 1
                for other in itertools.product(ROWS, COLUMNS):
                    told = judge(
                        caption.text.replace(
                            " ".join(words[:2]) + f" in the {row} {column}", f"{colour} {shape} in the {' '.join(other)}"
                        ),
                        scene,
                    )
                    assert told.right == lies_in(*other, entry), (caption.text, other, told)
                assert lies_in(row, column, entry)
                assert sum(lies_in(*other, entry) for other in itertools.product(ROWS, COLUMNS)) <= 4
    assert said > len(scenes)


def test_the_judge_catches_every_kind_of_mistake(scenes):
    for scene in scenes:
        caption = captions_of(scene, random.Random(0))[0].text
        first = scene.objects[0]
        colour = next(name for name in COLOURS if all(entry.colour != name for entry in scene.objects))
        assert not judge(caption.replace(first.colour, colour, 1), scene).right
        assert not judge(caption + " and a dog", scene).right
        assert not judge("", scene).right
        size = "small" if first.size != "small" else "large"
        assert not judge(caption.replace(first.colour, f"{size} {first.colour}", 1), scene).right
        if len(scene.objects) > 1:
            name = next(place for place in PLACES.values() if place in caption)
            for other in PLACES.values():
                told = judge(caption.replace(name, other), scene)
                first, second = scene.objects[:2]
                meant = next(relation for relation, place in PLACES.items() if place == other)
                assert told.right == is_true(meant, second, first), (caption, other, told)
            assert not judge(caption.replace(f" {name}", "", 1), scene).right, "no relation is told"
            assert not judge(f"a {first.colour} {first.shape}", scene).right, "objects are left out"
            assert not judge(f"{caption} and a {first.colour} {first.shape}", scene).right, "one is named twice"


def test_a_relation_is_not_true_both_ways(scenes):
    for scene in scenes:
        for one in scene.objects:
            for two in scene.objects:
                assert not (is_true("left of", one, two) and is_true("right of", one, two))
                assert is_true("above", one, two) == is_true("below", two, one)


def test_a_written_data_set_holds_the_scenes_their_captions_and_masks(tmp_path, capsys):
    folder = tmp_path / "scenes"
    assert main(["scenes", str(folder), "--count", "5", "--seed", "9"]) == 0
    examples = read_data(folder)
    instances = json.loads((folder / "instances.json").read_text())["annotations"]
    captions = json.loads((folder / "captions.json").read_text())["annotations"]

    assert len(examples) == 5
    for number, example in enumerate(examples):
        scene = draw_scene(9, number)
        with Image.open(example.image) as image:
            assert image.tobytes() == scene.paint().tobytes()
        assert all(judge(text, scene).right for text in example.references)
        own = [entry for entry in instances if entry["image_id"] == number]
        for entry, drawn in zip(own, scene.objects, strict=True):
            flat = np.concatenate([np.full(n, i % 2) for i, n in enumerate(entry["segmentation"]["counts"])])
            assert (flat.reshape(224, 224, order="F") == drawn.mask).all()
            assert entry["area"] == drawn.mask.sum()
        for caption in (row for row in captions if row["image_id"] == number):
            for word in caption["words"]:
                shape = SHAPES[instances[word["annotation"]]["category_id"]]
                assert caption["caption"][word["start"] : word["end"]] == shape
    assert main(["scenes", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
