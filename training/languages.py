"""Languages that a network has not been trained with: a token for each, after the start token."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model import CaptionNetwork, CaptionTokenizer, ModelConfig


def with_languages(
    config: ModelConfig, tokenizer: CaptionTokenizer, more_languages: Sequence[str]
) -> tuple[ModelConfig, CaptionTokenizer]:
    """Return config and tokenizer with the languages that they lack; the same ones if they lack none."""
    first_spelling: dict[str, str] = {}  # by tag in lower case
    for tag in (*config.languages, *more_languages):
        first_spelling.setdefault(tag.lower(), tag)
    languages = tuple(first_spelling.values())
    if len(languages) == len(config.languages):
        return config, tokenizer
    old = dict(zip(config.languages, config.language_token_ids, strict=False))
    new = [f"<{tag}>" for tag in languages if tag not in old]
    tokenizer = tokenizer.extended([token for token in new if tokenizer.id_of(token) is None])
    ids = tuple(old[tag] if tag in old else _id_of(tokenizer, f"<{tag}>") for tag in languages)
    decoder = dataclasses.replace(
        config.decoder,
        vocab_size=max(config.decoder.vocab_size, *(index + 1 for index in ids)),
        suppress_tokens=tuple(sorted({*config.decoder.suppress_tokens, *ids})),
    )
    return dataclasses.replace(config, decoder=decoder, languages=languages, language_token_ids=ids), tokenizer


def load_with_languages(network: CaptionNetwork, before: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a network that had the config `before`, and fewer languages.

    The new network starts near the old one. The first language tokens are copies of the start token, and learned positions after
    it are as the one before: a caption's first token is as likely as before, later ones attend to the start twice. More language
    tokens are copies of the first language's, which changes nothing. What the old network lacks stays as it is.
    """
    own = network.state_dict()
    loaded = own | {name: _grown(own[name], value) for name, value in weights.items()}
    table = loaded["decoder.token_embedding.weight"]
    start = before.language_token_ids[0] if before.language_token_ids else network.config.decoder.bos_token_id
    for index in set(network.config.language_token_ids) - set(before.language_token_ids):
        table[index] = table[start]
    positions = "decoder.position_embedding.weight"
    if network.config.language_token_ids and not before.language_token_ids and positions in loaded:
        old = loaded[positions]
        first = network.config.decoder.position_offset + 1
        loaded[positions] = torch.cat([old[:first], old[first - 1 : -1]])
    network.load_state_dict(loaded)


def _grown(new: Tensor, old: Tensor) -> Tensor:
    """Return the new values with the old ones at their beginning."""
    grown = new.clone()
    grown[tuple(slice(0, size) for size in old.shape)] = old
    return grown


def _id_of(tokenizer: CaptionTokenizer, token: str) -> int:
    index = tokenizer.id_of(token)
    assert index is not None, "it has just been added"
    return index
