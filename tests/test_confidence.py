"""Confidence of captions and words (model/confidence.py)."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
from starlette.testclient import TestClient

from model import Caption, Captioner, ConfidenceConfig, ConfigError, GenerationOptions, Word, save_checkpoint
from model.__main__ import main
from model.captions import with_confidence
from model.confidence import CAPTION_FEATURES, WORD_FEATURES, caption_features, logistic, word_features
from model.shorten import shorter_captions
from service import Settings, create_app
from service.http.dialects.native.json_body import result_json

GREEDY = GenerationOptions(strategy="greedy", max_words=6)
WEIGHTS = ConfidenceConfig(
    caption=(0.3, 0.5, -0.2, 0.1, 0.4, -0.6), word=(-0.1, 0.7, 0.2, -0.3, 0.5, 0.1), word_offsets={"square": 0.9}
)


def with_weights(captioner, weights):
    """Return a captioner of the same network with another calibration."""
    network = captioner.runtime

    class Calibrated:
        """The network, with another config."""

        config = dataclasses.replace(network.config, confidence=weights)

        def __getattr__(self, name: str) -> object:
            return getattr(network, name)

    return Captioner(Calibrated(), captioner.tokenizer)


@pytest.fixture(scope="module")
def calibrated(tiny_captioner):
    return with_weights(tiny_captioner, WEIGHTS)


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
        score = sum(weight * value for weight, value in zip(WEIGHTS.word, [1, *features], strict=True))
        offset = WEIGHTS.word_offsets.get(word.text, 0)
        assert word.confidence == pytest.approx(1 / (1 + math.exp(-score - offset)))
    assert word_features(log_probs, reliances)[1][:3] == [log_probs[1], reliances[1], log_probs[0]]


def test_a_frequent_word_has_its_offset_also_at_the_start_of_a_sentence():
    words = tuple(Word(text, 0, 1, -0.5, 0.3, None, None) for text in ("Square", "ring"))
    square, ring = with_confidence(Caption("Square ring", words, -1.0, "stop"), WEIGHTS).words
    scores = [
        sum(weight * value for weight, value in zip(WEIGHTS.word, (1, -0.5, 0.3, before, -0.5, 0.3), strict=True))
        for before in (0.0, -0.5)
    ]
    assert square.confidence == pytest.approx(1 / (1 + math.exp(-scores[0] - 0.9)))
    assert ring.confidence == pytest.approx(1 / (1 + math.exp(-scores[1])))


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


def test_beginnings_of_a_caption_are_complete(tokenizer):
    def beginnings(text):
        return [tokenizer.decode(tokens) for tokens in shorter_captions(tokenizer, tokenizer.encode(text))]

    assert beginnings("a red square with a blue ring on a star") == ["a red square with a blue ring", "a red square"]
    assert beginnings("a dog , a cat and a bird") == ["a dog , a cat"]
    assert beginnings("a dog") == []
    assert beginnings("dogs in a park") == [], "one word is no caption"
    assert beginnings("a dog next to a cat") == ["a dog"], "not 'a dog next'"
    assert beginnings("") == []


def uncertain(calibrated, views, limit, **options):
    settings = dataclasses.replace(GREEDY, max_words=12, min_confidence=limit, **options)
    return calibrated.caption(views[:1], settings)[0].captions[0]


def test_a_caption_that_is_sure_enough_is_kept(calibrated, views):
    plain = calibrated.caption(views[:1], dataclasses.replace(GREEDY, max_words=12))[0].captions[0]
    kept = uncertain(calibrated, views, plain.confidence - 1e-6)
    assert (kept.text, kept.log_probability, kept.finish_reason) == (plain.text, plain.log_probability, plain.finish_reason)
    assert list(calibrated.stream(views[0], dataclasses.replace(GREEDY, min_confidence=1e-9))), "all words, at the end"


def test_no_caption_is_sure_enough_for_certainty(calibrated, views):
    caption = uncertain(calibrated, views, 1.0)
    assert (caption.text, caption.words, caption.finish_reason) == ("", (), "uncertain")
    assert 0 < caption.confidence < 1


def test_a_caption_is_shortened_until_it_passes(tiny_captioner, views, monkeypatch):
    """Every beginning counts as complete here: random weights write no prepositions."""

    def all_beginnings(tokenizer, tokens):
        return [tuple(tokens[:end]) for end in range(len(tokens) - 1, 1, -1)]

    monkeypatch.setattr("model.batch.shorter_captions", all_beginnings)
    short_is_sure = with_weights(tiny_captioner, ConfidenceConfig(caption=(0.0, 0.0, 0.0, 0.0, 0.0, -2.0)))
    options = dataclasses.replace(GREEDY, strategy="sample", seed=3, min_words=5, max_words=12)
    plain = short_is_sure.caption(views[:1], options)[0].captions[0]
    limit = logistic((0.0, -2.0), [math.log(3)]) - 1e-9
    assert plain.confidence < limit
    shorter = short_is_sure.caption(views[:1], dataclasses.replace(options, min_confidence=limit))[0].captions[0]
    assert len(shorter.words) == 3, "the longest that passes"
    assert shorter.finish_reason == "stop"
    assert plain.text.startswith(shorter.text)


def test_min_confidence_needs_a_calibrated_checkpoint_and_nothing_else(tiny_captioner, calibrated, views):
    options = dataclasses.replace(GREEDY, min_confidence=0.5)
    with pytest.raises(ConfigError, match=r"min_confidence is 0\.5, but this checkpoint has no calibrated confidence"):
        tiny_captioner.caption(views[:1], options)
    unrequested = calibrated.caption(views[:1], dataclasses.replace(GREEDY, min_confidence=1e-9), reliance=False)[0]
    assert unrequested.captions[0].confidence > 0, "what it is computed from is computed, too"


def test_the_service_refuses_what_it_cannot_judge(client, image_bytes):
    response = client.post("/v1/captions", content=image_bytes, params={"min_confidence": "0.5"})
    assert response.status_code == 422
    assert "min_confidence is 0.5" in response.text


def test_the_text_of_an_uncertain_caption_is_null(calibrated, views):
    result = calibrated.caption(views[:1], dataclasses.replace(GREEDY, min_confidence=1.0))[0]
    (caption,) = result_json("caption", "m", "en", views[0], result, None)["captions"]
    assert (caption["text"], caption["finish_reason"], caption["words"]) == (None, "uncertain", [])
    assert 0 < caption["confidence"] < 1


@pytest.mark.parametrize("media", ["application/json", "text/plain", "text/event-stream", "image/png", "text/html"])
def test_every_form_of_a_response_can_be_without_a_caption(tiny_captioner, image_bytes, media):
    network = tiny_captioner.runtime
    network = copy.copy(network)  # another config, the same weights
    network.config = dataclasses.replace(network.config, confidence=WEIGHTS)
    app = create_app({"sure": Captioner(network, tiny_captioner.tokenizer)}, Settings())
    with TestClient(app) as client:
        response = client.post("/v1/captions?min_confidence=1", content=image_bytes, headers={"Accept": media})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith(media)
    if media == "text/plain":
        assert response.text == "\n"
    if media == "text/event-stream":
        assert "event: word" not in response.text
        assert '"finish_reason":"uncertain"' in response.text.replace(": ", ":")


def test_files_without_a_confident_caption_are_listed_and_not_written(tmp_path, photo, tiny_captioner, capsys):
    network = tiny_captioner.runtime
    config = dataclasses.replace(network.config, confidence=WEIGHTS)
    save_checkpoint(tmp_path / "c", config, network.state_dict(), tiny_captioner.tokenizer, "")
    (tmp_path / "one.png").write_bytes(photo())
    flags = ["caption", str(tmp_path / "one.png"), "--checkpoint", str(tmp_path / "c"), "--sidecar", "--min-confidence", "1"]
    assert main(flags) == 0
    assert "1 without a caption of --min-confidence" in capsys.readouterr().err
    assert not (tmp_path / "one.txt").exists()
