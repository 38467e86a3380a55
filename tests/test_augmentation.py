"""Augmented images: crops, distortions without a change of color, mirror images, and what a step draws for each image."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import torch
from PIL import Image

from corpus import Augmentation, open_dataset
from tests.networks import tiny_config
from training import TrainingData


def test_crops_keep_their_area_and_colors_stay():
    image = Image.new("RGB", (80, 40), (200, 30, 60))
    rng = random.Random(0)
    areas = []
    for _ in range(60):
        crop = Augmentation(min_crop_area=0.5)(image, rng)
        areas.append(crop.width * crop.height / 3200)
    assert min(areas) > 0.45
    assert max(areas) <= 1
    assert max(areas) - min(areas) > 0.3
    changed = [np.asarray(Augmentation(num_operations=2, magnitude=10)(image, rng), dtype=float) for _ in range(40)]
    for pixels in changed:
        red, green, blue = pixels[20, 40]
        assert pixels.shape == (40, 80, 3)
        assert red > 2 * blue > 2.5 * green, "still red, whatever its brightness"
    assert len({pixels.tobytes() for pixels in changed}) > 10
    assert not Augmentation().is_active


def test_shears_and_shifts_move_the_image_and_keep_its_center():
    image = Image.new("RGB", (60, 60))
    image.paste((255, 255, 255), (28, 28, 32, 32))
    rng, moved, kept = random.Random(1), 0, 0
    for _ in range(60):
        pixels = np.asarray(Augmentation(num_operations=1, magnitude=10)(image, rng), dtype=float).sum(-1)
        rows, columns = np.nonzero(pixels > 600)
        is_center = len(rows) > 0 and abs(rows.mean() - 29.5) < 3 and abs(columns.mean() - 29.5) < 3
        kept, moved = kept + is_center, moved + (not is_center)
    assert kept > 25, "shears, rotations, sharpness and brightness"
    assert moved > 5, "shifts by up to 30 %"


def test_augmented_batches_differ_by_step_and_mirrored_ones_swap_left_and_right(tokenizer):
    entries = [
        dataclasses.replace(entry, can_mirror=True, captions=("a dog on the left",))
        for entry in open_dataset("scenes:4").split("train")
    ]
    data = TrainingData(
        entries, tokenizer, tiny_config(tokenizer.size), None, num_views=2, captions_per_image=1, max_caption_tokens=40,
        augmentation=Augmentation(0.5),
    )  # fmt: skip
    first, again, other = (data.batch([0, 1, 2], random.Random(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.inputs[0], again.inputs[0])
    assert not torch.equal(first.inputs[0], other.inputs[0])
    texts = {tokenizer.decode(row[1:-1].tolist()) for seed in range(8) for row in data.batch([0], random.Random(seed)).tokens}
    assert texts == {"a dog on the left", "a dog on the right"}


def test_what_is_drawn_for_an_image_does_not_depend_on_the_others(tokenizer):
    entries = open_dataset("scenes:6").split("train")
    config = tiny_config(tokenizer.size)
    options = {"num_views": 1, "captions_per_image": 1, "max_caption_tokens": 60, "unconditional_ratio": 0.5}
    data = TrainingData(entries, tokenizer, config, None, **options)
    together = data.batch([0, 1, 2, 3, 4, 5], random.Random("step"))
    for index in range(6):
        alone = data.batch([index], random.Random("step"))
        assert bool(alone.is_dropped[0]) == bool(together.is_dropped[index])
        length = int(alone.is_target.sum())
        assert torch.equal(alone.tokens[0, : length + 1], together.tokens[index, : length + 1])
    assert 0 < int(together.is_dropped.sum()) < 6
