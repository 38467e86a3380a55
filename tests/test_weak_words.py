"""The probe that ranks weak captions (training/embedded/words.py)."""

from __future__ import annotations

import pytest
import torch

from corpus import open_dataset
from model import CaptionNetwork
from tests.networks import tiny_config
from training import FrozenPart, cached_features
from training.embedded.words import MIN_COUNT, WordProbe, pooled, rank_by_words, words_of

NOUNS = ("beach", "kitchen", "street")


@pytest.fixture(scope="module")
def fitted():
    """300 images of three kinds; feature 0..2 says which, the others are noise."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3
    features = torch.randn(300, 8, generator=generator)
    features[torch.arange(300), label] += 4.0
    captions = [[f"a man in a {NOUNS[index]}", "a man"] for index in label.tolist()]
    probe = WordProbe([text for texts in captions for text in texts] + ["a rare giraffe"] * (MIN_COUNT - 1))
    probe.fit(features, captions)
    return probe, features, label


def test_words_that_are_common_enough_are_predicted(fitted):
    probe, _, _ = fitted
    assert probe.words == sorted({"a", "man", "in", *NOUNS})
    assert words_of("A man, 2 DOGS.") == ["a", "man", "dogs"]
    table = probe.occurrences(["a man in a man", "giraffe"])
    assert table.sum(dim=1).tolist() == [3, 0]


def test_an_image_raises_the_words_of_what_it_shows(fitted):
    probe, features, label = fitted
    raised = probe.raises(features)[:, [probe.words.index(name) for name in NOUNS]]  # (N, 3)
    assert (raised.argmax(dim=1) == label).float().mean() > 0.97
    own = raised[torch.arange(len(label)), label]
    assert own.mean() > 0.5
    assert probe.raises(features)[:, probe.words.index("man")].std() < 0.2, "all images have it"


def test_captions_are_ranked_by_the_image_and_by_the_detector(fitted):
    probe, features, label = fitted
    captions = [f"in a {name}" for name in NOUNS]
    occurrences, raised = probe.occurrences(captions), probe.raises(features[:3])
    candidates = [[(0.0, 0), (0.0, 1), (0.0, 2)]] * 3
    ranked = rank_by_words(raised, occurrences, candidates, agreement=1.0, consensus=0.0)
    assert [own[0][1] for own in ranked] == label[:3].tolist()
    for own in ranked:
        assert [score for score, _ in own] == sorted((score for score, _ in own), reverse=True)
    agreed = rank_by_words(raised, occurrences, [[(0.0, 0), (9.0, 1), (0.0, 2)], [], [(0.0, 2)]], agreement=1.0, consensus=0.0)
    assert [[number for _, number in own][:1] for own in agreed] == [[1], [], [2]]


def test_pooled_features_are_means_and_maxima_of_the_cached_maps(tmp_path, tokenizer):
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size, stem="resnet10t", stem_strides=(8,))).eval()
    cache = cached_features(tmp_path, network, FrozenPart("stem"), open_dataset("scenes:3").split("train"), 1, torch.float32, "x")
    (maps,) = cache.read([0, 1, 2], [0, 0, 0])
    expected = torch.cat([maps.flatten(2).mean(dim=2), maps.flatten(2).amax(dim=2)], dim=1)
    torch.testing.assert_close(pooled(cache), expected)


def test_a_caption_that_says_what_many_say_comes_first(fitted):
    probe, _, _ = fitted
    occurrences = probe.occurrences(["a beach", "a man in a kitchen", "man in kitchen", "in a kitchen"])
    zeros = torch.zeros(1, len(probe.words))
    candidates = [[(0.0, number) for number in range(4)]]
    assert [number for _, number in rank_by_words(zeros, occurrences, candidates, consensus=0.0)[0]] == [0, 1, 2, 3]
    ranked = rank_by_words(zeros, occurrences, candidates, consensus=1.0)[0]
    assert [number for _, number in ranked][-1] == 0
