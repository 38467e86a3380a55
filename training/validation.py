"""Validation by generated captions: what a user would see, not the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from corpus import CaptionedImage
from evaluation import CaptionScores
from model import CaptionBatch, CaptionNetwork, CaptionRequest, CaptionTokenizer, GenerationOptions, autocast, to_device
from training.features import FeatureCache, FrozenPart, view_pixels

_BATCH = 50  # images
_MIN_DISTINCT = 0.1  # below this share of distinct captions the network writes nearly one caption for all images


def greedy_captions(
    network: CaptionNetwork,
    tokenizer: CaptionTokenizer,
    entries: Sequence[CaptionedImage],
    cache: FeatureCache | None,
    frozen: FrozenPart,
    dtype: torch.dtype,
    language: str = "",
) -> dict[str, str]:
    """Return a caption for each image, by image id."""
    options = GenerationOptions(strategy="greedy", max_words=40)
    request = CaptionRequest(view=None, options=options, maps="none", reliance=False, language=language)
    captions: dict[str, str] = {}
    with torch.inference_mode(), autocast(network.device, dtype):
        for first in range(0, len(entries), _BATCH):
            part = list(range(first, min(first + _BATCH, len(entries))))
            if cache is not None:
                stored = cache.read(part, [0] * len(part))
                features = frozen.features(network.encoder, tuple(to_device(value, network.device) for value in stored))
            else:
                pixels = [view_pixels(entries[index], 0, network.config.image) for index in part]
                features = network.encode(torch.stack(pixels))
            batch = CaptionBatch(network, tokenizer)
            batch.add(part, [request] * len(part), features)
            batch.run()
            results = batch.pop_results(part)
            captions |= {entries[index].image_id: result.captions[0].text for index, result in zip(part, results, strict=True)}
    return captions


def validation_report(name: str, step: int, scores: CaptionScores, captions: dict[str, str]) -> str:
    """Return scores, three captions to read, and a warning if nearly all captions are the same."""
    lines = [
        f"step {step}  {name}: CIDEr {100 * scores.cider:.1f}  BLEU-4 {100 * scores.bleu[3]:.1f}  "
        f"distinct {100 * scores.distinct:.0f} %  words {scores.words:.1f}",
        *(f"    {text}" for text in list(captions.values())[:3]),
    ]
    if scores.distinct < _MIN_DISTINCT:
        lines.append("  WARNING: nearly one caption for all images; lower --lr, and check that images and captions match")
    return "\n".join(lines)
