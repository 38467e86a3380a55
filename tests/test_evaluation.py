"""Measures and their command lines."""

from __future__ import annotations

import json
import math

import pytest
import torch

from corpus import draw_scene
from evaluation import (
    best_constant,
    caption_images,
    choose_heads,
    held_out_scenes,
    human_captions,
    image_pointing,
    judge_captions,
    leave_one_out,
    nearest_captions,
    png_bytes,
    scene_pointing,
    score_captions,
    shuffled_images,
    tokens_of,
    told_tokens,
)
from evaluation.__main__ import main
from evaluation.heads import HeadRows
from evaluation.synonyms import named_at, words_of
from model import (
    Box,
    Caption,
    CaptionNetwork,
    CaptionResult,
    GenerationOptions,
    MapConfig,
    PatchGrid,
    Timing,
    Word,
    WordMap,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from tests.conftest import tiny_config

REFERENCES = {
    "1": ["a brown dog runs on the grass", "a dog is running", "the dog runs fast"],
    "2": ["two children play football", "kids play with a ball", "two kids kick a ball in the park"],
    "3": ["a man rides a red bike", "a cyclist on a hill", "a man on a bicycle rides down a hill"],
}


def test_captions_are_compared_by_the_tokens_of_their_language():
    assert tokens_of("A well-known dog's ball .", "en-GB") == ["a", "well-known", "dog", "'s", "ball"]
    assert tokens_of("一只狗,在LV 2店。", "zh") == ["一", "只", "狗", "在", "lv", "2", "店"]
    assert tokens_of("दोस्त हैं। Ein Hund!", "hi") == ["दोस्त", "हैं", "ein", "hund"]
    assert [told_tokens(language) for language in ("en", "zh-Hans", "ar")] == [
        "PTB tokens without punctuation",
        "characters",
        "lower-cased runs of letters, marks and digits",
    ]


def test_a_copied_reference_scores_higher_than_a_wrong_caption():
    good = score_captions({image: texts[0] for image, texts in REFERENCES.items()}, REFERENCES)
    shuffled = score_captions(shuffled_images({image: texts[0] for image, texts in REFERENCES.items()}, seed=1), REFERENCES)
    assert good.bleu[0] == pytest.approx(1.0, abs=1e-6)
    assert good.cider > 1.0 > 0.5 > shuffled.cider
    assert (len(good.images), good.distinct, good.copied) == (3, 1.0, None)


def test_cider_is_what_its_paper_says_on_a_case_done_by_hand():
    """One-word captions: only 1-grams count, each of the four orders weighs a quarter, and a factor of 10."""
    references = {"1": ["dog"], "2": ["cat"]}
    found = score_captions({"1": "dog", "2": "dog"}, references)
    assert found.cider == pytest.approx((10 * 0.25 * 1.0 + 0.0) / 2, abs=1e-6)


def test_captions_without_references_are_named():
    with pytest.raises(ValueError, match="'9'"):
        score_captions({"9": "a dog"}, REFERENCES)


def test_the_best_constant_is_the_best_of_its_candidates():
    candidates = [text for texts in REFERENCES.values() for text in texts]
    _text, scores = best_constant(candidates, REFERENCES)
    every = {c: score_captions(dict.fromkeys(REFERENCES, c), REFERENCES).cider for c in candidates}
    assert scores.cider == pytest.approx(max(every.values()))
    assert scores.distinct == pytest.approx(1 / 3)


class Pointer:
    """A captioner whose maps are given: one cell a word."""

    def __init__(self, cell_of) -> None:
        self._cell_of = cell_of
        self._asked = 0

    @property
    def image_config(self):
        from model import ImageConfig

        return ImageConfig(height=224, width=224)

    def explain(self, views, texts, **_):
        answers = []
        for group in texts:
            captions = tuple(self._caption(text) for text in group)
            answers.append(CaptionResult(captions, PatchGrid(14, 14), Timing(0, 0, 0)))
            self._asked += 1
        return answers

    def _caption(self, text: str) -> Caption:
        words, start = [], 0
        for name in text.split():
            start = text.index(name, start)
            values = torch.zeros(196, dtype=torch.float64)
            values[self._cell_of(self._asked, name)] = 1.0
            words.append(Word(name, start, start + len(name), -1.0, 0.0, WordMap(values, 1.0), (0, 0, 1, 1)))
            start += len(name)
        return Caption(text, tuple(words), -1.0, "stop")


def test_maps_that_point_at_their_objects_score_one_and_swapped_maps_score_none():
    scenes = [draw_scene(3, n) for n in range(200) if len(draw_scene(3, n).objects) >= 2][:30]

    def cell(number: int, shape: str, other: bool = False) -> int:
        objects = scenes[number].objects
        own = next((index for index, entry in enumerate(objects) if entry.shape == shape), 0)
        mask = torch.from_numpy(objects[(own + 1) % len(objects) if other else own].mask)
        centres = mask[8::16, 8::16].flatten()
        return int(centres.nonzero()[0]) if centres.any() else int(mask.reshape(14, 16, 14, 16).float().mean((1, 3)).argmax())

    single = [s for s in scenes if len({e.shape for e in s.objects}) == len(s.objects)]
    scenes = single
    right = scene_pointing(Pointer(cell), scenes)
    wrong = scene_pointing(Pointer(lambda n, shape: cell(n, shape, other=True)), scenes)

    assert right.pointing > 0.9
    assert right.swapped > 0.95
    assert right.other < 0.05
    assert wrong.pointing < 0.05
    assert 0.01 <= right.area <= 0.12
    assert right.objects == sum(len(scene.objects) for scene in scenes)


def test_photographs_are_judged_by_the_boxes_of_the_class_that_a_word_names(photo):
    from corpus import Example, NamedBox

    picture = photo(140, 140)
    boxes = (NamedBox("dog", Box(0, 0, 70, 70)), NamedBox("person", Box(70, 70, 140, 140)))
    example = Example(picture, ("a dog and a woman", "something else"), "val", "1", objects=boxes)
    right = image_pointing(Pointer(lambda n, name: 0 if name == "dog" else 195), [example])
    wrong = image_pointing(Pointer(lambda n, name: 195 if name == "dog" else 0), [example])

    assert (right.objects, right.pointing, right.swapped, right.swaps) == (2, 1.0, 1.0, 2)
    assert (wrong.pointing, wrong.other, wrong.swapped) == (0.0, 1.0, 0.0)
    assert right.area == pytest.approx(0.25, abs=0.08)  # cells that a box touches
    assert (right.strict_pointing, wrong.strict_pointing) == (1.0, 0.0)
    assert "women" in words_of("person")
    assert named_at("person", "a woman and a man") == 2
    assert named_at("fire hydrant", "A red Fire Hydrant") == 11
    assert named_at("dog", "a doghouse") is None


def test_scenes_are_captioned_and_judged(tiny_captioner):
    scenes = held_out_scenes(6)
    pictures = [png_bytes(scene.render()) for scene in scenes]
    figures = judge_captions(caption_images(tiny_captioner, pictures, GenerationOptions(strategy="greedy")), scenes)
    assert figures["right"] == 0.0, "random weights cannot be right"
    assert sum(figures["wrong"].values()) == 6
    assert all(scene.unseen for scene in held_out_scenes(4, unseen=True))


def test_a_results_file_is_scored_from_the_command_line(tmp_path, capsys):
    images = [{"id": int(image), "file_name": f"{image}.jpg"} for image in REFERENCES]
    rows = [
        {"id": n, "image_id": int(i), "caption": c} for n, (i, c) in enumerate((i, c) for i, t in REFERENCES.items() for c in t)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": rows}))
    results = [{"image_id": image if image == "1" else int(image), "caption": texts[0]} for image, texts in REFERENCES.items()]
    (tmp_path / "results.json").write_text(json.dumps(results))

    arguments = ["captions", "--results", str(tmp_path / "results.json"), "--data", str(tmp_path / "captions.json")]
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["systems"]["results"]
    assert figures["BLEU-1"] == pytest.approx(1.0, abs=1e-6)
    assert figures["images"] == 3
    assert math.isfinite(figures["CIDEr"])
    assert main(arguments) == 0
    assert "CIDEr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["captions", "--results", "none.json", "--data", "none.json"], 1),
        (["maps", "--data", "none", "--json"], 1),
        (["captions"], 2),
    ],
)
def test_bad_data_and_wrong_use_have_their_own_status(arguments, status, capsys):
    try:
        found = main(arguments)
    except SystemExit as error:
        found = error.code
    assert found == status
    assert capsys.readouterr().err


def test_wrong_pictures_are_the_same_captions_elsewhere():
    captions = {str(n): f"caption {n}" for n in range(20)}
    references = {str(n): [f"caption {n}"] for n in range(20)}
    elsewhere = shuffled_images(captions)
    assert sorted(elsewhere.values()) == sorted(captions.values())
    assert all(elsewhere[image] != captions[image] for image in captions), "none keeps its own"
    with pytest.raises(ValueError, match="one picture"):
        shuffled_images({"1": "a"})
    assert score_captions(elsewhere, references).bleu[0] < score_captions(captions, references).bleu[0]


def test_a_system_and_a_human_are_scored_against_the_same_references():
    references = {**REFERENCES, "4": ["a lone caption"]}
    humans = leave_one_out(human_captions(references), references)
    assert [scores.images for scores in humans] == [("1", "2", "3")] * 3, "image 4 has nobody to compare with"
    by_hand = {image: texts[:1] + texts[2:] for image, texts in REFERENCES.items()}
    second = score_captions({image: texts[1] for image, texts in REFERENCES.items()}, by_hand)
    assert humans[1].cider == pytest.approx(second.cider)
    copies = leave_one_out(lambda out: {image: texts[out - 1] for image, texts in REFERENCES.items()}, REFERENCES)
    assert all(scores.bleu[0] == pytest.approx(1.0, abs=1e-6) for scores in copies), "a caption that is still among them"


def test_the_nearest_pictures_lend_their_most_usual_caption():
    dogs, balls = ["a dog runs", "a dog runs", "the hound"], ["a red ball", "red ball"]
    train = torch.tensor([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)
    captions = [dogs] * 20 + [balls] * 20
    assert nearest_captions(torch.tensor([[0.9, 0.1], [0.1, 0.8]]), train, captions) == ["a dog runs", "a red ball"]


def test_intervals_hold_the_score_and_shrink_with_more_images():
    captions = {str(n): "a dog runs on the grass" if n % 2 else "a red ball" for n in range(200)}
    references = {str(n): [("a dog runs on the grass", "a man in a red shirt")[n % 3 == 0], f"a ball {n}"] for n in range(200)}
    few = score_captions(dict(list(captions.items())[:10]), references)
    many = score_captions(captions, references)
    for name, score in (("CIDEr", many.cider), ("BLEU-4", many.bleu[3]), ("ROUGE-L", many.rouge_l)):
        low, high = many.intervals[name]
        assert low <= score <= high
        assert high - low < few.intervals[name][1] - few.intervals[name][0]


def test_copies_of_training_captions_are_counted():
    scores = score_captions({"1": "A dog runs .", "2": "kids play"}, REFERENCES, training=["a dog runs"])
    assert scores.copied == 0.5
    assert (scores.distinct, scores.vocabulary) == (1.0, 5)


def test_the_heads_that_point_are_found_among_those_that_do_not():
    """Rows made by hand: head 1 of layer 0 and head 0 of layer 1 each see a half of the objects, the others nothing."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.zeros(40, 12)
    shares[range(40), torch.randint(12, (40,), generator=generator)] = 1.0
    rows = torch.rand(4, 40, 12, generator=generator) * 0.1
    rows[1, :20] += shares[:20]
    rows[2, 20:] += shares[20:]
    chosen, (score,) = choose_heads([HeadRows(rows, shares > 0, torch.ones(40), 2)], MapConfig())
    assert chosen == [(0, 1), (1, 0)]
    assert score == 1.0


def test_heads_are_chosen_and_written_from_the_command_line(tmp_path, tokenizer, capsys):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "c", config, CaptionNetwork(config).state_dict(), tokenizer, "")
    arguments = ["heads", "--checkpoint", str(tmp_path / "c"), "--data", "scenes", "--scenes", "4", "--write", "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = read_config(tmp_path / "c").maps.heads
    assert [list(pair) for pair in written] == figures["heads"]
    assert len(figures["scenes"]["alone"]) == 4
    assert load_checkpoint(tmp_path / "c").config.maps.heads == written
