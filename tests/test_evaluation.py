"""Caption scores, baselines, captions of scenes, and the command lines."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch

import benchmarks.__main__
import evaluation.__main__
from evaluation import (
    best_constant_caption,
    caption_images,
    describe_tokens,
    held_out_scenes,
    human_captions,
    judge_captions,
    leave_one_out,
    nearest_captions,
    png_bytes,
    score_captions,
    shuffled_images,
    tokenize_caption,
)
from evaluation.__main__ import main
from model import GenerationOptions

REFERENCES = {
    "1": ["a brown dog runs on the grass", "a dog is running", "the dog runs fast"],
    "2": ["two children play football", "kids play with a ball", "two kids kick a ball in the park"],
    "3": ["a man rides a red bike", "a cyclist on a hill", "a man on a bicycle rides down a hill"],
}


def test_each_language_has_its_tokens():
    assert tokenize_caption("A well-known dog's ball .", "en-GB") == ["a", "well-known", "dog", "'s", "ball"]
    assert tokenize_caption("一只狗,在LV 2店。", "zh") == ["一", "只", "狗", "在", "lv", "2", "店"]
    assert tokenize_caption("दोस्त हैं। Ein Hund!", "hi") == ["दोस्त", "हैं", "ein", "hund"]
    assert [describe_tokens(language) for language in ("en", "zh-Hans", "ar")] == [
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


def test_cider_equals_a_value_computed_by_hand():
    """One-word captions have 1-grams only; each of the four orders has weight 1/4, and the factor is 10."""
    references = {"1": ["dog"], "2": ["cat"]}
    scores = score_captions({"1": "dog", "2": "dog"}, references)
    assert scores.cider == pytest.approx((10 * 0.25 * 1.0 + 0.0) / 2, abs=1e-6)


def test_captions_without_references_are_rejected_by_image_id():
    with pytest.raises(ValueError, match="'9'"):
        score_captions({"9": "a dog"}, REFERENCES)


def test_the_best_constant_caption_has_the_highest_cider_of_all_candidates():
    candidates = [text for texts in REFERENCES.values() for text in texts]
    _text, scores = best_constant_caption(candidates, REFERENCES)
    cider_of = {text: score_captions(dict.fromkeys(REFERENCES, text), REFERENCES).cider for text in candidates}
    assert scores.cider == pytest.approx(max(cider_of.values()))
    assert scores.distinct == pytest.approx(1 / 3)


def test_captions_of_random_weights_are_wrong_on_every_scene(tiny_captioner):
    scenes = held_out_scenes(6)
    images = [png_bytes(scene.render()) for scene in scenes]
    figures = judge_captions(caption_images(tiny_captioner, images, GenerationOptions(strategy="greedy")), scenes)
    assert figures["right"] == 0.0
    assert sum(figures["wrong"].values()) == 6
    assert all(scene.unseen for scene in held_out_scenes(4, unseen=True))


def test_a_results_file_is_scored_from_the_command_line(tmp_path, capsys):
    images = [{"id": int(image), "file_name": f"{image}.jpg"} for image in REFERENCES]
    captions = [(int(image), text) for image, texts in REFERENCES.items() for text in texts]
    rows = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(captions)]
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
def test_the_exit_status_is_1_for_bad_data_and_2_for_wrong_use(arguments, status, capsys):
    try:
        actual = main(arguments)
    except SystemExit as error:
        actual = error.code
    assert actual == status
    assert capsys.readouterr().err


def test_shuffled_captions_are_the_same_captions_on_other_images():
    captions = {str(number): f"caption {number}" for number in range(20)}
    references = {image: [text] for image, text in captions.items()}
    shuffled = shuffled_images(captions)
    assert sorted(shuffled.values()) == sorted(captions.values())
    assert all(shuffled[image] != captions[image] for image in captions)
    with pytest.raises(ValueError, match="1 captions cannot be assigned"):
        shuffled_images({"1": "a"})
    assert score_captions(shuffled, references).bleu[0] < score_captions(captions, references).bleu[0]


def test_a_system_and_a_human_are_scored_against_the_same_references():
    references = {**REFERENCES, "4": ["a lone caption"]}
    humans = leave_one_out(human_captions(references), references)
    assert [scores.images for scores in humans] == [("1", "2", "3")] * 3, "image 4 has no second reference"
    by_hand = {image: texts[:1] + texts[2:] for image, texts in REFERENCES.items()}
    second = score_captions({image: texts[1] for image, texts in REFERENCES.items()}, by_hand)
    assert humans[1].cider == pytest.approx(second.cider)
    copies = leave_one_out(lambda index: {image: texts[index - 1] for image, texts in REFERENCES.items()}, REFERENCES)
    assert all(scores.bleu[0] == pytest.approx(1.0, abs=1e-6) for scores in copies), (
        "a caption that is one of the remaining references"
    )


def test_the_baseline_of_nearest_images_is_their_consensus_caption():
    dogs, balls = ["a dog runs", "a dog runs", "the hound"], ["a red ball", "red ball"]
    train = torch.tensor([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)
    captions = [dogs] * 20 + [balls] * 20
    assert nearest_captions(torch.tensor([[0.9, 0.1], [0.1, 0.8]]), train, captions) == ["a dog runs", "a red ball"]


def test_intervals_contain_the_score_and_shrink_with_more_images():
    captions = {str(number): "a dog runs on the grass" if number % 2 else "a red ball" for number in range(200)}
    references = {
        str(number): [("a dog runs on the grass", "a man in a red shirt")[number % 3 == 0], f"a ball {number}"]
        for number in range(200)
    }
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


def actions_of(parser):
    """Yield every flag and positional argument of a parser and of its subparsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from actions_of(subparser)
        else:
            yield action


@pytest.mark.parametrize("make_parser", [evaluation.__main__.make_parser, benchmarks.__main__.make_parser])
def test_every_option_has_a_help_that_states_its_default(make_parser):
    actions = list(actions_of(make_parser()))
    assert len(actions) > 15
    assert [action.dest for action in actions if not action.help] == []
    with_default = [
        action for action in actions if action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, False, [])
    ]
    assert [action.dest for action in with_default if "default: " not in action.help] == []


def test_decoding_flags_apply_to_every_system(capsys):
    arguments = ["captions", "--data", "scenes", "--scenes", "2", "--device", "cpu", "--dtype", "float32", "--json"]
    assert main([*arguments, "--num-beams", "1", "--num-beams", "2", "--max-words", "1"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [figures[name]["training_pairs"]["right"] for name in ("greedy", "beam 2")] == [0.0, 0.0]
    assert main([*arguments, "--strategy", "sample", "--num-beams", "2"]) == 1
    assert "--num-beams does not apply to --strategy sample" in capsys.readouterr().err
