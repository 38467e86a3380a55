"""Batches of a data source and the cached features of its images."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys

import torch

from corpus import open_dataset
from model import BOS_ID, EOS_ID, PAD_ID, CaptionNetwork, EncoderConfig, ImageConfig, ModelConfig
from tests.networks import tiny_config
from training import FrozenPart, TrainingData, cached_features, view_pixels
from training.token_lists import TokenLists


def test_cached_features_are_used_only_for_the_same_images_views_and_strides(tmp_path, tokenizer):
    def cached(entries, strides=(8, 16), views=1):
        config = tiny_config(tokenizer.size)
        encoder = dataclasses.replace(config.encoder, stem="resnet10t", stem_strides=strides)
        torch.manual_seed(0)
        network = CaptionNetwork(dataclasses.replace(config, encoder=encoder, image=ImageConfig(height=64, width=64))).eval()
        return network, cached_features(tmp_path, network, FrozenPart("stem"), entries, views, torch.float32, "x")

    entries = open_dataset("scenes:6").split("train")
    network, cache = cached(entries)
    pixels = torch.stack([view_pixels(entries[index], 0, network.config.image) for index in (4, 1)])
    with torch.no_grad():
        for stored, fresh in zip(cache.read([4, 1], [0, 0]), network.encoder.stem(pixels), strict=True):
            torch.testing.assert_close(stored, fresh, atol=2e-2, rtol=2e-2)  # float16 on disk

    def parts():
        return list(tmp_path.glob("*/part-*"))

    assert len(parts()) == 1
    cached(entries)
    assert len(parts()) == 1, "they are computed once"
    cached([dataclasses.replace(entry, fingerprint="changed") for entry in entries])
    assert len(parts()) == 2
    cached(entries, strides=(16,))
    cached(entries, views=2)
    assert len(parts()) == 4


def test_a_batch_has_one_language_and_translations_are_not_mirrored(tokenizer):
    entries = [
        dataclasses.replace(entry, can_mirror=True, translations=(("zh", ("ein rotes quadrat links",)),))
        for entry in open_dataset("scenes:6").split("train")
    ]
    config = dataclasses.replace(
        ModelConfig(image=ImageConfig(height=56, width=56), encoder=EncoderConfig(patch_size=8)),
        languages=("en", "zh"),
        language_token_ids=(7, 8),
    )
    options = {"num_views": 2, "captions_per_image": 2, "max_caption_tokens": 200}
    data = TrainingData(entries, tokenizer, config, None, **options)
    languages, mirrored = set(), 0
    for seed in range(30):
        batch = data.batch([0, 1, 2], random.Random(seed))
        (language,) = {int(row[1]) for row in batch.tokens}
        languages.add(language)
        pixels = torch.stack([view_pixels(entries[index], 0, config.image) for index in range(3)])
        is_same = torch.equal(batch.inputs[0], pixels)
        assert is_same or language == 7
        mirrored += not is_same
        assert len(batch.image_of) == (3 if language == 8 else 6)
    assert languages == {7, 8}
    assert mirrored


def test_more_images_cost_only_what_is_new(tmp_path, tokenizer):
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size, stem="resnet10t", stem_strides=(8,))).eval()
    entries = open_dataset("scenes:6").split("train")

    def cached(part):
        return cached_features(tmp_path, network, FrozenPart("stem"), part, 1, torch.float32, "x")

    cached(entries[1:4])
    cache = cached(entries)
    (folder,) = tmp_path.iterdir()
    listed = [json.loads((part / "images.json").read_text()) for part in sorted(folder.glob("part-*"))]
    assert [len(names) for names in listed] == [3, 3]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid(), os.getppid()):
        (folder / f"unfinished-{process}").mkdir()
        (folder / f"unfinished-{process}" / "0.npy").write_bytes(b"half")
    pixels = torch.stack([view_pixels(entry, 0, network.config.image) for entry in entries])
    with torch.no_grad():
        (fresh,) = network.encoder.stem(pixels)
    for again in (cache, cached(entries)):
        (stored,) = again.read([5, 0, 2, 3], [0, 0, 0, 0])
        torch.testing.assert_close(stored, fresh[[5, 0, 2, 3]], atol=2e-2, rtol=2e-2)
    assert len(cached(open_dataset("scenes:8").split("train"))) == 8
    left = [path.name for path in folder.glob("unfinished-*")]
    assert left == [f"unfinished-{os.getppid()}"], "what another process writes is left alone"


def test_token_lists_return_what_they_were_made_of():
    images = [[[1, 5, 2], [1, 2]], [], [[]], [[7] * 9]]
    lists = TokenLists(images)
    assert [lists[index] for index in range(len(lists))] == images
    assert lists.longest() == [3, 0, 0, 9]
    assert len(TokenLists([])) == 0


def training_data(tokenizer, **options: object) -> TrainingData:
    entries = open_dataset("scenes:20").split("train")
    settings = {"num_views": 1, "captions_per_image": 2, "max_caption_tokens": 200} | options
    return TrainingData(
        entries,
        tokenizer,
        ModelConfig(image=ImageConfig(height=56, width=56), encoder=EncoderConfig(patch_size=8)),
        None,
        **settings,
    )


def test_an_epoch_contains_every_image_once_in_another_order(tokenizer):
    batches = training_data(tokenizer)
    first, second = batches.plan(0, 1, 6), batches.plan(1, 1, 6)
    assert sorted(index for batch in first for index in batch) == list(range(20))
    assert first != second
    assert batches.plan(0, 1, 6) == first
    assert len(training_data(tokenizer, max_images_per_epoch=12).plan(0, 1, 6)) == 2


def test_a_row_of_a_batch_is_start_text_end_and_padding(tokenizer):
    batch = training_data(tokenizer).batch([0, 3], random.Random(0))
    assert batch.image_of == (0, 0, 1, 1)
    assert batch.inputs[0].shape == (2, 3, 56, 56)
    for row in batch.tokens.tolist():
        text = row[1 : row.index(EOS_ID)]
        assert row[0] == BOS_ID
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(text)
        assert set(row[row.index(EOS_ID) + 1 :]) <= {PAD_ID}


def test_a_truncated_caption_has_no_end_token(tokenizer):
    batch = training_data(tokenizer, max_caption_tokens=4).batch([0, 1], random.Random(0))
    assert batch.tokens.size(1) == 5
    assert EOS_ID not in batch.tokens


def test_shuffled_images_give_every_caption_another_image(tokenizer):
    shuffled = training_data(tokenizer, shuffle_images=True)
    unshuffled = training_data(tokenizer)
    differ = [
        not torch.equal(shuffled.batch([i], random.Random(0)).inputs[0], unshuffled.batch([i], random.Random(0)).inputs[0])
        for i in range(20)
    ]
    assert sum(differ) >= 15
    assert torch.equal(shuffled.batch([3], random.Random(0)).tokens, unshuffled.batch([3], random.Random(0)).tokens)
