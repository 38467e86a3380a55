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

    special: tuple[int, ...]  # start token, the id that always follows it, in a checkpoint of several languages the language's
    prompt: tuple[int, ...] = ()
    num_generated: int = 0  # of the special ids, those that `generate` counts as generated

    @property
    def all(self) -> tuple[int, ...]:
        return self.special + self.prompt


def prefix_ids(config: ModelConfig, tokenizer: CaptionTokenizer, language: str = "", prompt: str = "") -> PrefixIds:
    """Return the ids before a caption in `language` ("" is the default) that begins with `prompt`. Raises ConfigError."""
    index = language_index(config, language)
    token = config.language_token_ids[index : index + 1]
    forced = () if config.decoder.forced_bos_token_id is None else (config.decoder.forced_bos_token_id,)
    ids = tuple(tokenizer.encode(prompt))
    # With a prompt the forced id is part of what is given to `generate`; without one it is its first choice.
    return PrefixIds((config.decoder.bos_token_id, *forced, *token), ids, 0 if ids else len(forced))


def language_index(config: ModelConfig, language: str = "") -> int:
    """Return the index of the checkpoint's language that a BCP 47 tag stands for, the first one for "". Raises ConfigError.

    The look-up of RFC 4647, section 3.4: without a language of that name its last part is removed, so that en-US is en. Letter
    case is ignored, and _ is read as -, as in the names of locales.
    """
    known = [_parts(tag) for tag in config.languages]
    parts = _parts(language) or known[0]
    while parts:
        if parts in known:
            return known.index(parts)
        parts = parts[:-1]
    raise ConfigError(f"language is {language[:80]!r}; this checkpoint has {', '.join(config.languages)}")


def _parts(tag: str) -> list[str]:
    return tag.strip().replace("_", "-").lower().split("-") if tag.strip() else []
