"""Tokenization of captions for scoring: one rule per language.

English uses the PTB tokens of published scores. Chinese and Japanese are compared by character, as in their papers. Any other
language is compared by lower-cased runs of letters, combining marks and digits.
"""

from __future__ import annotations

import re
import unicodedata

from evaluation.ptb import scored_tokens

_CHARACTER_LANGUAGES = ("zh", "ja")
_RUN_OR_CHARACTER = re.compile(r"[a-z0-9]+|.")


def tokenize_caption(text: str, language: str = "en") -> list[str]:
    """Return the tokens of a caption in a language (a BCP 47 tag; only its first subtag is used)."""
    subtag = language.lower().split("-")[0]
    if subtag == "en":
        return scored_tokens(text)
    spaced = "".join(char if _is_token_character(char) else " " for char in unicodedata.normalize("NFKC", text.lower()))
    if subtag not in _CHARACTER_LANGUAGES:
        return spaced.split()
    return [part for chunk in spaced.split() for part in _RUN_OR_CHARACTER.findall(chunk)]


def describe_tokens(language: str) -> str:
    """Return a description of the tokens that are compared in a language, for tables and reports."""
    subtag = language.lower().split("-")[0]
    if subtag == "en":
        return "PTB tokens without punctuation"
    return "characters" if subtag in _CHARACTER_LANGUAGES else "lower-cased runs of letters, marks and digits"


def _is_token_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
