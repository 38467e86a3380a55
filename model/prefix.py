"""What the decoder reads before the first generated token: start token, language token, prompt. Decoding, scoring pass and
training all take it from here."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import ModelConfig
from model.errors import ConfigError
from model.tokenizer import CaptionTokenizer


@dataclass(frozen=True, slots=True)
class PrefixIds:
    """Token ids before the first generated one: `special` stand for no text, `prompt` is the beginning of the caption."""

    special: tuple[int, ...]  # start token and, in a checkpoint of several languages, the language's token
    prompt: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        return self.special + self.prompt


def prefix_ids(config: ModelConfig, tokenizer: CaptionTokenizer, language: str = "", prompt: str = "") -> PrefixIds:
    """Return the ids before a caption in `language` ("" is the default) that begins with `prompt`. Raises ConfigError."""
    index = language_index(config, language)
    token = config.language_token_ids[index : index + 1]
    return PrefixIds((config.decoder.bos_token_id, *token), tuple(tokenizer.encode(prompt)))


def language_index(config: ModelConfig, language: str = "") -> int:
    """Return the index of a BCP 47 tag in the checkpoint's languages, letter case ignored. Raises ConfigError."""
    known = [tag.lower() for tag in config.languages]
    tag = (language or config.languages[0]).lower()
    if tag not in known:
        raise ConfigError(f"language is {language!r}; this checkpoint has {', '.join(config.languages)}")
    return known.index(tag)
