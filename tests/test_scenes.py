"""Synthetic scenes: exact captions, exact masks, and a judge that rejects every kind of mistake."""

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
from corpus.scene_captions import GRID_COLUMNS, GRID_ROWS, RELATION_PHRASES, is_in_position, is_true
from corpus.scenes import COLORS, SHAPES, silhouette


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(7, number) for number in range(150)]


def test_a_scene_is_determined_by_its_number():
    first, again, other = draw_scene(1, 5), draw_scene(1, 5), draw_scene(1, 6)
    assert first.render().tobytes() == again.render().tobytes()
    assert [entry.pair for entry in first.objects] == [entry.pair for entry in again.objects]
    assert first.render().tobytes() != other.render().tobytes()


def test_number_size_and_properties_of_objects_are_in_range(scenes):
    counts = Counter(len(scene.objects) for scene in scenes)
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 20
    for scene in scenes:
        assert scene.render().size == (224, 224)
        assert len({entry.pair for entry in scene.objects}) == len(scene.objects)
        for entry in scene.objects:
            assert 0.01 <= entry.area <= 0.12
    assert {entry.shape for scene in scenes for entry in scene.objects} == set(SHAPES)
    assert {entry.color for scene in scenes for entry in scene.objects} == set(COLORS)
    assert {entry.size for scene in scenes for entry in scene.objects} == {"small", "medium", "large"}


def test_at_most_a_fifth_of_an_object_is_hidden(scenes):
    for scene in scenes:
        for layer in scene.layers:
            full = np.asarray(silhouette(layer.shape, layer.center, layer.side).resize((224, 224))) >= 128
            visible = next(entry for entry in scene.objects if entry.pair == (layer.color, layer.shape))
            assert visible.mask.sum() >= 0.78 * full.sum()


def test_a_mask_covers_the_pixels_of_its_color(scenes):
    for scene in scenes[:40]:
        image = np.asarray(scene.render()).astype(int)
        for entry in scene.objects:
            inside = image[entry.mask]
            near = np.abs(inside - np.array(COLORS[entry.color])).max(axis=1) <= 12
            assert near.mean() > 0.8, (entry.color, entry.shape)  # the others are smooth edges


def test_masks_of_a_scene_do_not_overlap(scenes):
    for scene in scenes:
        assert sum(entry.mask.astype(int) for entry in scene.objects).max() == 1


def test_held_out_pairs_occur_only_in_scenes_with_unseen(scenes):
    assert len(UNSEEN_PAIRS) == 6
    assert not any(scene.unseen for scene in scenes)
    assert all(draw_scene(7, number, unseen=True).unseen for number in range(30))
    assert {color for color, _ in UNSEEN_PAIRS} < set(COLORS)


def test_splits_have_different_series():
    assert len(set(SCENE_SPLITS.values())) == 3


def test_every_caption_of_a_scene_is_right_and_names_all_objects(scenes):
    rng = random.Random(0)
    for scene in scenes:
        assert not any("in the" in caption.text for caption in captions_of(scene, rng))
        for caption in captions_of(scene, rng, positions=True):
            assert judge(caption.text, scene).right, caption.text
            names = {word.object: caption.text[word.start : word.end] for word in caption.words}
            assert names == {index: entry.shape for index, entry in enumerate(scene.objects)}


def test_other_true_wordings_are_right(scenes):
    scene = next(scene for scene in scenes if len(scene.objects) == 2)
    text = captions_of(scene, random.Random(0))[0].text
    assert judge(f"There is {text}.", scene).right
    for one, two in itertools.permutations(scene.objects):
        for name in ("left of", "right of", "above", "below"):
            statement = f"a {one.color} {one.shape} {name} the {two.color} {two.shape}"
            assert judge(statement, scene).right == is_true(name, one, two), statement
    assert judge(text.replace(" a ", " the ").upper(), scene).right


def test_captions_state_true_positions_and_false_positions_are_wrong(scenes):
    count = 0
    for scene in scenes:
        for caption in captions_of(scene, random.Random(1), positions=True)[2:]:
            for words in re.findall(r"(\w+) (\w+) in the (\w+) (\w+)", caption.text):
                color, shape, row, column = words
                entry = next(entry for entry in scene.objects if entry.pair == (color, shape))
                count += 1
                for other in itertools.product(GRID_ROWS, GRID_COLUMNS):
                    old, new = f"{color} {shape} in the {row} {column}", f"{color} {shape} in the {' '.join(other)}"
                    verdict = judge(caption.text.replace(old, new), scene)
                    assert verdict.right == is_in_position(*other, entry), (caption.text, other, verdict)
                assert is_in_position(row, column, entry)
                assert sum(is_in_position(*other, entry) for other in itertools.product(GRID_ROWS, GRID_COLUMNS)) <= 4
    assert count > len(scenes)


def test_the_judge_rejects_every_kind_of_mistake(scenes):
    for scene in scenes:
        caption = captions_of(scene, random.Random(0))[0].text
        first = scene.objects[0]
        color = next(name for name in COLORS if all(entry.color != name for entry in scene.objects))
        assert not judge(caption.replace(first.color, color, 1), scene).right
        assert not judge(caption + " and a dog", scene).right
        assert not judge("", scene).right
        size = "small" if first.size != "small" else "large"
        assert not judge(caption.replace(first.color, f"{size} {first.color}", 1), scene).right
        if len(scene.objects) > 1:
            name = next(phrase for phrase in RELATION_PHRASES.values() if phrase in caption)
            for other in RELATION_PHRASES.values():
                verdict = judge(caption.replace(name, other), scene)
                first, second = scene.objects[:2]
                relation = next(relation for relation, phrase in RELATION_PHRASES.items() if phrase == other)
                assert verdict.right == is_true(relation, second, first), (caption, other, verdict)
            assert not judge(caption.replace(f" {name}", "", 1), scene).right, "no relation is stated"
            assert not judge(f"a {first.color} {first.shape}", scene).right, "objects are not named"
            assert not judge(f"{caption} and a {first.color} {first.shape}", scene).right, "one is named twice"


def test_opposite_relations_are_not_true_at_once(scenes):
    for scene in scenes:
        for one in scene.objects:
            for two in scene.objects:
                assert not (is_true("left of", one, two) and is_true("right of", one, two))
                assert is_true("above", one, two) == is_true("below", two, one)


def test_a_written_data_set_has_the_scenes_with_their_captions_and_masks(tmp_path, capsys):
    folder = tmp_path / "scenes"
    assert main(["scenes", str(folder), "--count", "5", "--seed", "9"]) == 0
    examples = read_data(folder)
    instances = json.loads((folder / "instances.json").read_text())["annotations"]
    captions = json.loads((folder / "captions.json").read_text())["annotations"]

    assert len(examples) == 5
    for number, example in enumerate(examples):
        scene = draw_scene(9, number)
        with Image.open(example.image) as image:
            assert image.tobytes() == scene.render().tobytes()
        assert all(judge(text, scene).right for text in example.references)
        annotations = [entry for entry in instances if entry["image_id"] == number]
        for annotation, entry in zip(annotations, scene.objects, strict=True):
            mask = np.concatenate([np.full(n, i % 2) for i, n in enumerate(annotation["segmentation"]["counts"])])
            assert (mask.reshape(224, 224, order="F") == entry.mask).all()
            assert annotation["area"] == entry.mask.sum()
        for caption in (row for row in captions if row["image_id"] == number):
            for word in caption["words"]:
                shape = SHAPES[instances[word["annotation"]]["category_id"]]
                assert caption["caption"][word["start"] : word["end"]] == shape
    assert main(["scenes", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
