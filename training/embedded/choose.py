"""Weak captions of the second round: candidates ranked by a trained captioner, and captions of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from corpus import CaptionedImage, open_dataset
from model import Checkpoint
from training.embedded.rerank import CaptionGains
from training.embedded.weak import Text
from training.features import FeatureCache, FrozenPart, cached_features

IMAGES_PER_CALL = 16
MIN_GAIN = 0.0  # nats per token: below it the image lowers the caption


def rank_candidates(
    checkpoint: Checkpoint,
    entries: Sequence[CaptionedImage],
    cache: FeatureCache,
    texts: Sequence[Text],
    candidates: Mapping[str, Sequence[tuple[float, int]]],
    *,
    weight_of_agreement: float = 2.0,
) -> dict[str, list[tuple[float, int]]]:
    """Return for each image the (score, text) of its candidates that the image raises, best first.

    The score is the gain per token plus the mean log-probability halved, plus the detector's agreement times its weight.
    """
    network = checkpoint.network.eval()
    gains = CaptionGains(network, checkpoint.tokenizer, [text.caption for text in texts])
    part = FrozenPart("stem")
    ranked: dict[str, list[tuple[float, int]]] = {}
    for first in tqdm(range(0, len(entries), IMAGES_PER_CALL), desc="gains", unit="batch", leave=False, disable=None):
        numbers = list(range(first, min(first + IMAGES_PER_CALL, len(entries))))
        own = [candidates.get(entries[number].image_id, []) for number in numbers]
        if not any(own):
            continue
        with torch.inference_mode():
            features = part.features(network.encoder, cache.read(numbers, [0] * len(numbers)))
        scores = gains(features, [[text for _, text in own_candidates] for own_candidates in own])
        for number, own_candidates, values in zip(numbers, own, scores, strict=True):
            kept = [
                (gain + 0.5 * mean + weight_of_agreement * agreement, text)
                for (agreement, text), (gain, mean) in zip(own_candidates, values, strict=True)
                if gain > MIN_GAIN
            ]
            ranked[entries[number].image_id] = sorted(kept, reverse=True)
    return ranked


def unlabelled_entries(folder: Path, checkpoint: Checkpoint, features: Path) -> tuple[list[CaptionedImage], FeatureCache]:
    """Return the images of a folder of weak captions, and their cached features."""
    entries = open_dataset(str(folder)).split("train")
    cache = cached_features(features, checkpoint.network, FrozenPart("stem"), entries, 1, torch.float32, folder.name)
    return entries, cache
