"""Self-critical training: rewards, advantages, samples, and a network that learns what is rewarded."""

from __future__ import annotations

import copy
import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import train
from corpus import CaptionDataset, open_dataset
from evaluation import cider, tokenize_caption
from model import ImageFeatures
from tests.test_training import TINY
from training import Batch, SelfCritical, Source, TrainConfig, TrainingData, self_critical_of
from training.log import read_log
from training.regions import DetectedBox
from training.reward import END, HALLUCINATION, CaptionReward
from training.self_critical import advantages, sample

REFERENCES = {
    "1": ["a man rides a brown horse", "a person on a horse in a field", "a man on a horse"],
    "2": ["two dogs play in the snow", "a dog and another dog run in snow"],
    "3": ["a plate of food on a table", "a table with a plate and a fork"],
}


def test_the_reward_is_cider_with_the_document_frequencies_of_the_references():
    captions = {"1": "a man on a brown horse in the snow", "2": "two dogs run", "3": "a cat"}
    expected = cider(
        [[*tokenize_caption(text), END] for text in captions.values()],
        [[[*tokenize_caption(text), END] for text in texts] for texts in REFERENCES.values()],
    )
    reward = CaptionReward(REFERENCES)
    np.testing.assert_allclose(rewards_of(reward, list(captions), list(captions.values())), expected, atol=1e-12)
    for number, (image, text) in enumerate(captions.items()):  # alone, or beside others: the corpus is that of the references
        assert rewards_of(reward, [image], [text]).item() == pytest.approx(expected[number], abs=1e-12)
    assert expected[0] > expected[2] == 0
    same = rewards_of(reward, ["1"], ["a giraffe"]).item()
    assert rewards_of(reward, ["1", "1"], ["", "a zebra"]).tolist() == [0, pytest.approx(same)]


def rewards_of(reward: CaptionReward, images: list[str], captions: list[str]) -> torch.Tensor:
    """Return the rewards of captions that have their end."""
    return reward(images, captions, [True] * len(captions))


def test_a_caption_without_its_end_has_a_smaller_reward():
    reward = CaptionReward(REFERENCES)
    ended, cut = reward(["1", "1"], ["a man on a horse", "a man on a horse"], [True, False]).tolist()
    assert ended > cut > 0
    longer = reward(["1"], ["a man on a horse with a"], [False]).item()
    assert longer < cut, "words that no reference has next"


def test_words_that_no_reference_has_are_equally_rare():
    reward = CaptionReward(REFERENCES)
    words = [f"{first}{second}x" for first in "abcdefgh" for second in "aeiouy"]
    scores = [rewards_of(reward, ["1"], [f"a man on a {word} horse"]).item() for word in words]
    assert scores[0] > 0
    assert max(scores) - min(scores) < 1e-12


def test_a_class_that_is_not_in_the_image_costs_the_same_everywhere():
    captions = ["a man and a dog and a puppy on a bench", "a man on a horse", "two dogs play"]  # a dog twice, and a bench
    images = ["1", "1", "2"]  # the horse is in captions of the first image; nothing is known about the second one
    known = CaptionReward(REFERENCES, {"1": frozenset({"person"})})
    difference = rewards_of(CaptionReward(REFERENCES), images, captions) - rewards_of(known, images, captions)
    assert difference.tolist() == pytest.approx([2 * HALLUCINATION, 0, 0])


def test_weak_detections_are_no_objects_and_scenes_have_no_reward(tokenizer):
    scene = open_dataset("scenes:2").split("train")[0]
    entry = dataclasses.replace(scene, image_id="7", scene=None, captions=("a dog runs",))
    other = dataclasses.replace(entry, fingerprint="another file of that name", captions=("a cat sleeps",))
    boxes = [DetectedBox("dog", 0, 0, 1, 1, 0.5), DetectedBox("cat", 0, 0, 1, 1, 0.1)]
    config = TrainConfig(data=("x",), run="r", self_critical_weight=0.5, num_samples=2)
    sources = [Source(CaptionDataset("x", {"train": [entry, scene]})), Source(CaptionDataset("y", {"train": [other]}))]
    reward = self_critical_of(config, sources, {"7": boxes, "8": boxes}, tokenizer).reward
    assert entry.key in reward
    assert other.key in reward, "ids are the same in two folders"
    assert scene.key not in reward
    without = CaptionReward({entry.key: entry.captions, other.key: other.captions})
    keys, captions = [entry.key, entry.key, other.key], ["a cat", "a dog runs", "a dog runs"]
    lost = rewards_of(without, keys, captions) - rewards_of(reward, keys, captions)
    assert lost.tolist() == pytest.approx([HALLUCINATION, 0, 0])
    scores = rewards_of(without, keys, captions)
    assert scores[1] > scores[2], "each has its own captions"
    assert self_critical_of(TrainConfig(data=("x",), run="r"), sources, {}, tokenizer) is None


def test_an_advantage_is_the_reward_less_the_mean_of_the_others_in_units_of_their_size():
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    differences = torch.tensor([[0.0, -1.5, 1.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = differences / np.sqrt(2 * 1.5**2 / 6)
    torch.testing.assert_close(advantages(rewards), expected)
    torch.testing.assert_close(advantages(0.01 * rewards + 3), expected)
    assert advantages(rewards[1:]).abs().max() == 0, "all are equally good"
    assert advantages(rewards[1:] + torch.tensor([0, 1e-12, 0])).abs().max() < 1e-11, "nor is a rounding error better"


def features_of(network, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, network.grid.num_patches + 1, 24, generator=generator, dtype=torch.float64)
    return ImageFeatures(tokens, network.grid, 1)


def test_samples_have_the_probabilities_of_the_network(tiny_network):
    config = tiny_network.config.decoder
    features = features_of(tiny_network, 1)
    torch.manual_seed(0)
    rows = sample(tiny_network, features, (0,) * 4000, (config.bos_token_id,))
    state = tiny_network.start(features, (0,))
    logits = tiny_network.decode(torch.tensor([[config.bos_token_id]]), state)[0][0, 0]
    logits[list(config.suppress_tokens)] = -torch.inf
    counts = torch.bincount(torch.tensor([row[0] for row in rows]), minlength=config.vocab_size)
    assert (counts / 4000 - logits.softmax(dim=0)).abs().max() < 0.03
    for row in rows:
        assert config.eos_token_id not in row[:-1], "nothing comes after the end"


def test_samples_that_end_leave_the_others_as_they_are(tiny_network, monkeypatch):
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():  # so that some captions end early
        network.decoder.token_embedding.weight[network.config.decoder.eos_token_id] *= 1.6
    features, special = features_of(network, 12, seed=5), (network.config.decoder.bos_token_id,)
    monkeypatch.setattr(torch, "multinomial", lambda probabilities, count: probabilities.argmax(dim=-1, keepdim=True))
    rows = sample(network, features, tuple(range(12)), special)
    assert len({len(row) for row in rows}) > 2
    assert rows == [sample(network, features.select([image]), (0,), special)[0] for image in range(12)]


def test_a_network_learns_what_is_rewarded_and_keeps_its_dropout(tiny_network, tokenizer):
    network = copy.deepcopy(tiny_network).requires_grad_(True).train()
    critical = SelfCritical(CaptionReward(REFERENCES), tokenizer, weight=0.75, num_samples=8)
    features = features_of(network, 3)
    batch = Batch((), torch.tensor([[network.config.decoder.bos_token_id, 5]] * 3), torch.ones(3, 1).bool(), (0, 1, 2))
    alone = torch.tensor(1.5, dtype=torch.float64)
    for ids in ((), ("1", "2", "a scene")):
        other = dataclasses.replace(batch, image_keys=ids)
        assert critical.mix(alone, network, features, other) is alone, "no reward is known"
        assert critical.mean_reward is None
    batch = dataclasses.replace(batch, image_keys=tuple(REFERENCES))

    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rewards = []
    for _ in range(150):
        loss = critical.mix(alone, network, features, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(critical.mean_reward)
    assert np.mean(rewards[-10:]) > 2 * np.mean(rewards[:10]) + 0.05
    assert network.decoder.training


def test_the_loss_is_a_mean_by_weight(tiny_network, tokenizer):
    critical = SelfCritical(CaptionReward(REFERENCES), tokenizer, weight=0.75, num_samples=4)
    batch = Batch((), torch.tensor([[1, 5]]), torch.ones(1, 1).bool(), (0,), image_keys=("1",))
    features = features_of(tiny_network, 1)
    torch.manual_seed(3)
    sampled = critical.loss(tiny_network, features, batch)
    torch.manual_seed(3)
    mixed = critical.mix(torch.tensor(2.0, dtype=torch.float64), tiny_network, features, batch)
    assert mixed.item() == pytest.approx(0.25 * 2 + 0.75 * sampled.item())
    assert sampled.item() != 0


def test_a_run_writes_the_reward_of_its_samples(tmp_path):
    rows = []
    for number in range(6):
        Image.new("RGB", (24, 24), "red" if number % 2 else "blue").save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "split": "val" if number > 3 else "train", "captions": ["a red wall", "a wall"]})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", str(tmp_path / "captions.jsonl"), "--run", str(tmp_path / "run"), "--from-scratch", "--no-check"]
    flags += ["--max-steps", "3", "--self-critical-weight", "0.5", "--num-samples", "2", "--num-views", "1"]
    assert train.main([*TINY[2:], *flags]) == 0
    steps = [row for row in read_log(tmp_path / "run" / "log.jsonl") if "loss" in row]
    assert len(steps) == 3
    assert all(isinstance(row["reward"], float) for row in steps)


def test_batches_say_whose_captions_they_have(tokenizer, tiny_network):
    entries = open_dataset("scenes:4").split("train")
    data = TrainingData(entries, tokenizer, tiny_network.config, None, num_views=1, captions_per_image=1, max_caption_tokens=40)
    batch = data.batch([2, 0], random.Random(0))
    assert batch.image_keys == (entries[2].key, entries[0].key)
    assert batch.num_special == 1
