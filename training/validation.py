"""Validation by generated captions: what a user would see, not the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from corpus import CaptionedImage
from evaluation import CaptionScores
from model import CaptionBatch, CaptionNetwork, CaptionRequest, CaptionTokenizer, GenerationOptions, autocast, to_device
from training.features import FeatureCache, FrozenPart, view_pixels

_BATCH = 50  # images


def greedy_captions(
    network: CaptionNetwork,
    tokenizer: CaptionTokenizer,
    entries: Sequence[tuple[int, CaptionedImage]],
    cache: FeatureCache | None,
    frozen: FrozenPart,
    dtype: torch.dtype,
    language: str = "",
) -> dict[str, str]:
    """Return a caption for each image, by image id; `entries` are images with their index in the cache."""
    options = GenerationOptions(strategy="greedy", max_words=40)
    request = CaptionRequest(view=None, options=options, maps="none", reliance=False, language=language)
    captions: dict[str, str] = {}
    with torch.inference_mode(), autocast(network.device, dtype):
        for first in range(0, len(entries), _BATCH):
            part = entries[first : first + _BATCH]
            images = [index for index, _ in part]
            if cache is not None:
                stored = cache.read(images, [0] * len(part))
                features = frozen.features(network.encoder, tuple(to_device(value, network.device) for value in stored))
            else:
                pixels = [view_pixels(entry, 0, network.config.image) for _, entry in part]
                features = network.encode(torch.stack(pixels))
            batch = CaptionBatch(network, tokenizer)
            batch.add(images, [request] * len(part), features)
            batch.run()
            results = batch.pop_results(images)
            captions |= {entry.image_id: result.captions[0].text for (_, entry), result in zip(part, results, strict=True)}
    return captions


def merged_captions(entries: Sequence[CaptionedImage], parts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the captions that the ranks wrote, in the order of the images."""
    captions = {image_id: text for part in parts for image_id, text in part.items()}
    return {entry.image_id: captions[entry.image_id] for entry in entries}


def validation_report(name: str, step: int, scores: CaptionScores, captions: dict[str, str]) -> str:
    """Return scores and three captions to read."""
    lines = [
        f"step {step}  {name}: CIDEr {100 * scores.cider:.1f}  BLEU-4 {100 * scores.bleu[3]:.1f}  "
        f"distinct {100 * scores.distinct:.0f} %  words {scores.words:.1f}",
        *(f"    {text}" for text in list(captions.values())[:3]),
    ]
    return "\n".join(lines)
