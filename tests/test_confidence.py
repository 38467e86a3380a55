"""Confidence of captions and words (model/confidence.py)."""

from __future__ import annotations

import dataclasses
import math

import pytest

from model import Captioner, ConfidenceConfig, ConfigError, GenerationOptions
from model.confidence import CAPTION_FEATURES, WORD_FEATURES, caption_features, logistic, word_features

GREEDY = GenerationOptions(strategy="greedy", max_words=6)
WEIGHTS = ConfidenceConfig(caption=(0.3, 0.5, -0.2, 0.1, 0.4, -0.6), word=(-0.1, 0.7, 0.2, -0.3, 0.5, 0.1))


@pytest.fixture(scope="module")
def calibrated(tiny_captioner):
    network = tiny_captioner.runtime
    config = dataclasses.replace(network.config, confidence=WEIGHTS)

    class Calibrated:
        """The same network, with another config."""

        def __getattr__(self, name: str) -> object:
            return getattr(network, name)

    runtime = Calibrated()
    runtime.config = config
    return Captioner(runtime, tiny_captioner.tokenizer)


def test_confidence_is_the_logistic_function_of_the_features(calibrated, views):
    caption = calibrated.explain(views[:1], [["a red square and a ring"]])[0].captions[0]
    log_probs = [word.log_probability for word in caption.words]
    reliances = [word.image_reliance for word in caption.words]
    mean = sum(log_probs) / len(log_probs)
    assert caption_features(log_probs, reliances) == pytest.approx(
        [mean, min(log_probs), sum(reliances) / len(reliances), min(reliances), math.log(len(log_probs))]
    )
    values = [1, *caption_features(log_probs, reliances)]
    score = sum(weight * value for weight, value in zip(WEIGHTS.caption, values, strict=True))
    assert caption.confidence == pytest.approx(1 / (1 + math.exp(-score)))
    for word, features in zip(caption.words, word_features(log_probs, reliances), strict=True):
        assert word.confidence == pytest.approx(logistic(WEIGHTS.word, features))
    assert word_features(log_probs, reliances)[1][:3] == [log_probs[1], reliances[1], log_probs[0]]


def test_without_calibration_or_reliance_there_is_no_confidence(tiny_captioner, calibrated, views):
    plain = tiny_captioner.caption(views[:1], GREEDY)[0].captions[0]
    assert plain.confidence is None
    unknown = calibrated.caption(views[:1], GREEDY, reliance=False)[0].captions[0]
    assert unknown.confidence is None
    assert all(word.confidence is None for word in (*plain.words, *unknown.words))


def test_explained_captions_have_a_confidence_too(calibrated, views):
    assert 0 < calibrated.explain(views[:1], [["a red square"]])[0].captions[0].confidence < 1


def test_a_wrong_number_of_weights_is_an_error():
    with pytest.raises(ConfigError, match=f"it must have {1 + len(CAPTION_FEATURES)}, or none"):
        ConfidenceConfig(caption=(1.0,))
    with pytest.raises(ConfigError, match=f"it must have {1 + len(WORD_FEATURES)}, or none"):
        ConfidenceConfig(word=(1.0, 2.0))


def test_extreme_scores_are_probabilities():
    assert logistic((0.0, 1.0), [-1e9]) < 1e-20
    assert logistic((0.0, 1.0), [1e9]) == pytest.approx(1)
