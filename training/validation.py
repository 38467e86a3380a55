"""Validation by generated captions: what a user would see, not the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from corpus import Captioned
from evaluation import CaptionScores, score_captions
from model import CaptionNetwork, CaptionTokenizer, Generation, GenerationOptions
from training.features import FeatureCache, view_pixels

_BATCH = 50
FEW_DISTINCT = 0.1  # below this share of distinct captions a network has most likely learnt one caption for every picture


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores of one source's validation pictures, and three of its captions to read."""

    name: str
    scores: CaptionScores
    samples: tuple[str, ...]

    def line(self) -> str:
        """Return the scores in a line, with a warning where nearly all captions are the same."""
        scores = self.scores
        text = (
            f"{self.name}: CIDEr {100 * scores.cider:.1f}  BLEU-4 {100 * scores.bleu[3]:.1f}  "
            f"distinct {100 * scores.distinct:.0f} %  words {scores.words:.1f}"
        )
        if scores.distinct < FEW_DISTINCT:
            text += (
                "\n  WARNING: nearly one caption for every picture; lower --rate, and check that pictures and captions "
                "belong together"
            )
        return text


@torch.inference_mode()
def validate(
    name: str,
    network: CaptionNetwork,
    tokenizer: CaptionTokenizer,
    entries: list[Captioned],
    cache: FeatureCache | None,
    dtype: torch.dtype,
) -> Validation:
    """Caption the pictures greedily and score them."""
    options = GenerationOptions(strategy="greedy", max_words=40)
    captions: dict[str, str] = {}
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for first in range(0, len(entries), _BATCH):
            part = range(first, min(first + _BATCH, len(entries)))
            if cache is not None:
                features = network.encoder.finish(cache.read(list(part), [0] * len(part)))
            else:
                pixels = torch.stack([view_pixels(entries[index], 0, network.config.image) for index in part])
                features = network.encode(pixels)
            generation = Generation(network, tokenizer)
            generation.add(features, list(part), [options] * len(part))
            for index, hypotheses in generation.run().items():
                assert isinstance(index, int), "keys are the numbers given above"
                captions[entries[index].image_id] = tokenizer.decode(hypotheses[0].tokens)
    references = {entry.image_id: list(entry.captions) for entry in entries}
    return Validation(name, score_captions(captions, references), tuple(list(captions.values())[:3]))
