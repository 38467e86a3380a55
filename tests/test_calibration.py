"""Calibration (evaluation/calibration.py, calibrate.py, abstract_images.py)."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from corpus import captions_of, draw_scene
from evaluation import coco_synonyms, png_bytes
from evaluation.__main__ import main
from evaluation.abstract_images import abstract_images
from evaluation.calibration import acceptable_captions, auroc, fit_logistic, fit_words, judged_words, reliability
from model import DEFAULT_CHECKPOINT, Caption, Captioner, Word, prepare, read_config
from model.confidence import logistic


def test_reliability_of_a_perfect_and_of_an_uninformative_confidence():
    right = [True] * 60 + [False] * 40
    perfect = reliability([1.0] * 60 + [0.0] * 40, right)
    assert (perfect.expected_error, perfect.brier, perfect.auroc) == (0.0, 0.0, 1.0)
    assert perfect.coverage_at_90 == pytest.approx(0.66)
    rng = np.random.default_rng(0)
    flat = reliability([0.6 + 1e-9 * value for value in rng.random(100)], right)
    assert flat.brier == pytest.approx(0.24, abs=1e-6)
    assert 0.3 < flat.auroc < 0.7
    with pytest.raises(ValueError, match="needs right and wrong"):
        reliability([0.5, 0.6], [True, True])


def test_too_high_and_too_low_confidences_do_not_cancel():
    scores = [0.8 + 1e-6 * number for number in range(150)] + [0.2 + 1e-6 * number for number in range(150)]
    right = [number % 2 == 0 for number in range(300)]
    assert reliability(scores, right).expected_error == pytest.approx(0.3, abs=0.03)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 8, 60).astype(float)
    positive = rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


def test_the_fit_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20_000, 2)) * [1.5, 0.2] + [1.0, 0.3]
    true = (0.5, 0.8, -4.0)
    right = rng.random(20_000) < [logistic(true, row) for row in features]
    assert fit_logistic(features, right, ridge=0) == pytest.approx(true, abs=0.35)
    flat = fit_logistic(features, right, ridge=1e6)
    assert max(map(abs, flat[1:])) < 1e-3


def test_a_frequent_word_has_an_offset_and_a_rare_one_has_none():
    rng = np.random.default_rng(3)
    words = [("dog", "shirt", "sky")[number % 3] for number in range(9000)]
    true = {"dog": 1.5, "shirt": -1.0, "sky": -0.5}
    features = rng.normal(size=(9000, 1))
    right = [rng.random() < logistic((0.2, 0.7), row, true[word]) for word, row in zip(words, features, strict=True)]
    weights, offsets = fit_words(features, words, right, ridge=0)
    assert weights[1] == pytest.approx(0.7, abs=0.1)
    assert {word: weights[0] + value for word, value in offsets.items()} == {
        word: pytest.approx(0.2 + value, abs=0.15) for word, value in true.items()
    }
    few = fit_words(features[:39], ["dog"] * 30 + ["cat"] * 9, [True] * 30 + [False] * 9, ridge=0)[1]
    assert few.keys() == {"dog"}, "nine cases are too few"
    assert fit_words(features, [""] * 9000, right) == (fit_logistic(features, right), {})


def test_an_offset_of_few_cases_is_small():
    features = np.zeros((210, 1))
    right = [number % 2 == 0 for number in range(200)] + [True] * 10
    offsets = fit_words(features, [""] * 200 + ["dog"] * 10, right)[1]
    assert 0.5 < offsets["dog"] < 2, "ten of ten are no certainty"


def test_a_caption_like_the_references_is_acceptable():
    references = [
        [
            "a dog runs on grass",
            "a dog runs on green grass",
            "dog runs on the grass",
            "a brown dog runs on grass",
            "dog on grass",
        ],
        ["two men play music", "two men play guitars", "men play music", "two men with guitars play", "two men play"],
        ["a red bus on a street", "a red bus drives on a street", "red bus on street", "a bus on a street", "a red bus"],
    ]
    good = ["a dog runs on grass", "two men play music", "a red bus on a street"]
    bad = ["a red bus on a street", "a dog runs on grass", "a cat sleeps"]
    verdicts, threshold = acceptable_captions(good, references)
    assert verdicts == [True] * 3
    assert threshold > 0
    assert acceptable_captions(bad, references, threshold=threshold)[0] == [False] * 3


def test_words_are_judged_by_references_and_boxes():
    texts = ["A", "woman", "rides", "motorbikes", "near", "a", "giraffe", "quickly"]
    words = tuple(Word(text, 0, 1, 0.0, 0.0, None, None) for text in texts)
    verdicts = judged_words(
        Caption(" ".join(texts), words, 0.0, "stop"), ["a man riding in the city"], ["motorcycle"], coco_synonyms()
    )
    assert verdicts == [None, True, True, True, None, None, False, False]


def test_abstract_images_are_of_many_kinds():
    first, again = abstract_images(12), abstract_images(12)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) >= 10
    assert abstract_images(6, seed=1)[1].tobytes() != first[1].tobytes()


def test_a_checkpoint_is_calibrated_on_val_and_judged_on_test(tmp_path, photo, capsys, monkeypatch):
    """Scenes that the embedded checkpoint captions right, and noise with the captions of scenes, which it cannot."""
    monkeypatch.setattr("evaluation.calibrate.ABSTRACT_SHARE", 0.75)  # six for eight images
    monkeypatch.setattr("evaluation.calibrate.ABSTRACT_IMAGES", 5)
    counts = []
    monkeypatch.setattr(
        "evaluation.calibrate.abstract_images", lambda count, **more: counts.append(count) or abstract_images(count, **more)
    )
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEFAULT_CHECKPOINT, folder)
    rows = []
    for number in range(16):
        scene = draw_scene(2, number)
        text = captions_of(scene, random.Random(0))[0].text
        (tmp_path / f"{number}.png").write_bytes(png_bytes(scene.render()) if number % 2 else photo(seed=number))
        captions = [text, f"there is {text}", f"{text} here", f"{text} on paper", f"we see {text}"]
        rows.append({"image": f"{number}.png", "split": "val" if number < 8 else "test", "captions": captions})
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["calibrate", "--data", str(data), "--checkpoint", str(folder), "--write", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert counts == [6, 5], "for the fit, and to compare with"
    assert figures["captions"]["count"] == 8
    assert figures["captions"]["auroc"] > 0.6
    assert figures["words"]["auroc"] > 0.7
    stored = read_config(folder).confidence
    assert list(stored.caption) == pytest.approx(figures["weights"]["caption"])
    caption = (
        Captioner.load(folder).caption([prepare((tmp_path / "1.png").read_bytes(), read_config(folder).image)])[0].captions[0]
    )
    assert 0 < caption.confidence < 1
    assert all(0 < word.confidence < 1 for word in caption.words)
