"""Deletion, insertion, pixel occlusion and erased objects (evaluation/faithfulness.py)."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from corpus import DataError, captions_of, draw_scene
from evaluation import png_bytes
from evaluation.__main__ import main
from evaluation.faithfulness import (
    _erase,
    _hidden,
    _limited,
    _log_probs,
    _scores,
    _Words,
    deletion_insertion,
    erased,
    pixel_occlusion,
)
from model import LOCAL_IMAGE_LIMITS, Captioner, prefix_ids, prepare, save_checkpoint


@pytest.fixture(scope="module")
def scenes():
    return [scene for scene in (draw_scene(3, number) for number in range(20)) if len(scene.objects) > 1][:4]


def test_patches_that_are_taken_away_are_not_attended_to(tiny_captioner):
    """With all patches the score is that of the caption; without some it is that of an image that has only the others."""
    runtime, tokenizer = tiny_captioner.runtime, tiny_captioner.tokenizer
    pixels = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    features = runtime.encode(pixels)
    text, num_patches = "a red square", features.grid.num_patches
    ids = tokenizer.encode(text)
    words = [word.tokens for word in tokenizer.words(ids)]
    every = torch.arange(num_patches)
    scores = _scores(tiny_captioner, features, text, words, torch.stack([every, every.flip(0)]))

    special = prefix_ids(runtime.config, tokenizer).special
    inputs = torch.tensor([[*special, *ids]])
    logits = runtime.decode(inputs[:, :-1], runtime.start(features))[0]
    log_probs = logits[0, len(special) - 1 :].double().log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
    expected = torch.stack([log_probs[list(tokens)].sum() for tokens in words])
    torch.testing.assert_close(scores, expected.expand(2, -1), atol=1e-5, rtol=1e-5)

    some = _scores(tiny_captioner, features, text, words, torch.tensor([[0, 3, 5]]))
    assert not torch.allclose(some, scores[:1])
    changed = features.tokens.clone()
    first = features.num_prefix_tokens
    kept = [first + index for index in (0, 3, 5)]
    for index in range(first, first + num_patches):
        if index not in kept:
            changed[:, index] = torch.randn(24)
    other = type(features)(changed, features.grid, first)
    torch.testing.assert_close(_scores(tiny_captioner, other, text, words, torch.tensor([[0, 3, 5]])), some, atol=1e-5, rtol=1e-5)


def test_the_figures_of_random_weights_are_finite_and_of_every_word(tiny_captioner, scenes):
    images = [png_bytes(scene.render()) for scene in scenes]
    texts = [captions_of(scene, random.Random(0))[0].text for scene in scenes]
    figures = deletion_insertion(tiny_captioner, images, texts)
    assert set(figures) == {
        f"{kind}{order}" for kind in ("deletion", "insertion") for order in ("", "_random", "_other")
    } | {"deletion_wins", "words"}  # fmt: skip
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["words"] >= 2 * len(scenes)
    assert -1 <= pixel_occlusion(tiny_captioner, images[:1], texts[:1]) <= 1
    assert 0 <= erased(tiny_captioner, scenes) <= 1


def test_captions_without_two_words_are_an_error(tiny_captioner, scenes):
    with pytest.raises(DataError, match="two words of 4 letters"):
        deletion_insertion(tiny_captioner, [png_bytes(scenes[0].render())], ["a red"])


def test_several_images_and_several_rows_are_scored_as_one_by_one(tiny_captioner, scenes):
    text, tokenizer = "a red square and a star", tiny_captioner.tokenizer
    words = _Words([tuple(word.tokens) for word in tokenizer.words(tokenizer.encode(text))], torch.empty(0))
    images = [scene.render() for scene in scenes[:3]]
    together = _log_probs(tiny_captioner, images, text, words)
    for number, image in enumerate(images):
        torch.testing.assert_close(_log_probs(tiny_captioner, [image], text, words)[0], together[number], atol=1e-5, rtol=1e-5)
    view = prepare(png_bytes(images[0]), tiny_captioner.image_config, LOCAL_IMAGE_LIMITS)
    features = tiny_captioner.runtime.encode(view.pixels[None])
    every = torch.arange(features.grid.num_patches).expand(3 * len(words.tokens), -1)
    assert _limited(tiny_captioner, features, text, words, every).shape == (3, len(words.tokens))
    torch.testing.assert_close(
        _limited(tiny_captioner, features, text, words, every), together[:1].expand(3, -1), atol=1e-5, rtol=1e-5
    )


def test_the_embedded_checkpoint_loses_words_by_their_own_patches(scenes):
    embedded = Captioner.load(device="cpu", dtype="float32")
    images = [png_bytes(scene.render()) for scene in scenes]
    texts = [captions_of(scene, random.Random(0))[0].text for scene in scenes]
    figures = deletion_insertion(embedded, images, texts)
    assert figures["deletion"] < figures["deletion_random"]
    assert figures["insertion"] > figures["insertion_random"]
    assert erased(embedded, scenes) > 0.6


def test_only_the_named_object_is_erased(scenes):
    for scene in scenes:
        whole = np.asarray(scene.render(), dtype=int)
        for number, entry in enumerate(scene.objects):
            changed = np.abs(np.asarray(_erase(scene, number), dtype=int) - whole).max(axis=2) > 8
            assert (changed & entry.mask).sum() > 0.8 * entry.mask.sum()
            others = [other.mask for index, other in enumerate(scene.objects) if index != number]
            assert not any((changed & mask).sum() > 0.2 * mask.sum() for mask in others)


def test_a_hidden_square_is_gray_and_the_rest_stays():
    image = Image.new("RGB", (71, 50), "red")
    counts = np.zeros((50, 71), dtype=int)
    for number in range(49):
        counts += np.asarray(_hidden(image, number))[..., 1] == 128
    assert (counts == 1).all()


def test_the_command_prints_them(tiny_captioner, tmp_path, capsys):
    network = tiny_captioner.runtime
    save_checkpoint(tmp_path / "c", network.config, network.state_dict(), tiny_captioner.tokenizer, "")
    flags = ["--data", "scenes", "--scenes", "6", "--faithfulness", "--checkpoint", str(tmp_path / "c"), "--json"]
    assert main(["maps", *flags]) == 0
    assert {"deletion", "insertion_random", "deletion_wins", "erased"} <= set(
        json.loads(capsys.readouterr().out.splitlines()[-1])
    )
