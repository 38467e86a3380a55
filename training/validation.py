"""Validation by generated captions: what a user would see, not the loss."""

from __future__ import annotations

import torch

from corpus import Captioned
from model import CaptionNetwork, CaptionTokenizer, Generation, GenerationOptions
from training.features import FeatureCache, FrozenPart, view_pixels

_BATCH = 50


@torch.inference_mode()
def greedy_captions(
    network: CaptionNetwork,
    tokenizer: CaptionTokenizer,
    entries: list[Captioned],
    cache: FeatureCache | None,
    frozen: FrozenPart,
    dtype: torch.dtype,
) -> dict[str, str]:
    """Return a caption for each picture, by image id."""
    options = GenerationOptions(strategy="greedy", max_words=40)
    captions: dict[str, str] = {}
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for first in range(0, len(entries), _BATCH):
            part = list(range(first, min(first + _BATCH, len(entries))))
            if cache is not None:
                features = frozen.features(network.encoder, cache.read(part, [0] * len(part)))
            else:
                pixels = [view_pixels(entries[index], 0, network.config.image) for index in part]
                features = network.encode(torch.stack(pixels))
            generation = Generation(network, tokenizer)
            generation.add(features, part, [options] * len(part))
            finished = generation.run()
            captions |= {entries[index].image_id: tokenizer.decode(finished[index][0].tokens) for index in part}
    return captions
