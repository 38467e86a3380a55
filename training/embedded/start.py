"""The start of the embedded checkpoint's training: its predecessor with a detector, more tokens and more languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from model import CaptionNetwork, CaptionTokenizer, Checkpoint, ConfigError, PatchEncoder
from training.efficientdet import load_detector
from training.embedded.vocabulary import spelled_by, with_more_tokens
from training.languages import load_with_languages, with_languages

LANGUAGES = ("en", "zh", "ar", "hi")


def with_tokens(tokenizer: CaptionTokenizer, texts: Mapping[str, tuple[Sequence[str], int]]) -> CaptionTokenizer:
    """Return the tokenizer with tokens for the texts of each language, at most so many."""
    for captions, count in texts.values():
        tokenizer = with_more_tokens(tokenizer, captions, count)
    return tokenizer


def start_network(previous: Checkpoint, tokenizer: CaptionTokenizer, detector: Path) -> tuple[CaptionNetwork, CaptionTokenizer]:
    """Return a network that captions nearly as `previous` does, and its tokenizer, which ends with a token per language.

    It has a detector whose class map is not used yet. A new token starts as the mean of the old tokens that spell it, language
    tokens as training/languages.py says. Raises ConfigError if the file of the detector is of another network, or if `previous`
    has a detector already.
    """
    old = previous.config
    if old.encoder.stem_detector:
        raise ConfigError("the previous checkpoint has a detector already; use the one before it (docs/checkpoints.md)")
    config = dataclasses.replace(
        old,
        encoder=dataclasses.replace(old.encoder, stem_detector="efficientdet_lite2", centered=True),
        decoder=dataclasses.replace(old.decoder, vocab_size=tokenizer.size),
        maps=dataclasses.replace(old.maps, pointing=None),
    )
    spelled = spelled_by(previous.tokenizer, tokenizer)
    config, tokenizer = with_languages(config, tokenizer, LANGUAGES)
    network = CaptionNetwork(config)
    source = previous.network.state_dict()
    load_with_languages(network, old, source)
    with torch.no_grad():
        table = network.decoder.token_embedding.weight
        for index, parts in spelled.items():
            table[index] = source["decoder.token_embedding.weight"][parts].mean(dim=0)
        projection = "encoder.vit.patch_embed.proj.weight"
        network.get_parameter(projection)[:, source[projection].size(1) :] = 0
    assert isinstance(network.encoder, PatchEncoder), "the embedded checkpoint's"
    part = network.encoder.vit.patch_embed.backbone.detector
    assert part is not None
    load_detector(part, detector)
    return network, tokenizer


def interpolated(before: CaptionNetwork, after: CaptionNetwork, share: float) -> CaptionNetwork:
    """Return a network with the weights (1 - share) * before + share * after.

    A training that continues a network forgets some of what it could do; between the two much of both is left (Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models", section 3).
    """
    network = CaptionNetwork(after.config)
    old = before.state_dict()
    network.load_state_dict(
        {
            name: old[name] + share * (value - old[name]) if value.is_floating_point() else value
            for name, value in after.state_dict().items()
        }
    )
    return network
