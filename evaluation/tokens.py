"""Which tokens of a caption are compared: a rule a language.

English has the PTB tokens of published figures. Chinese and Japanese are compared by characters, as their papers do. Any
other language is compared by lower-cased runs of letters, marks and digits.
"""

from __future__ import annotations

import re
import unicodedata

from evaluation.ptb import scored_tokens

_BY_CHARACTERS = ("zh", "ja")
_RUN_OR_CHARACTER = re.compile(r"[a-z0-9]+|.")


def tokens_of(text: str, language: str = "en") -> list[str]:
    """Return the tokens of a caption in a language (BCP 47; its first subtag counts)."""
    subtag = language.lower().split("-")[0]
    if subtag == "en":
        return scored_tokens(text)
    spaced = "".join(character if _belongs(character) else " " for character in unicodedata.normalize("NFKC", text.lower()))
    if subtag not in _BY_CHARACTERS:
        return spaced.split()
    return [part for chunk in spaced.split() for part in _RUN_OR_CHARACTER.findall(chunk)]


def told_tokens(language: str) -> str:
    """Return in words what is compared in a language, for whoever reads the figures."""
    subtag = language.lower().split("-")[0]
    if subtag == "en":
        return "PTB tokens without punctuation"
    return "characters" if subtag in _BY_CHARACTERS else "lower-cased runs of letters, marks and digits"


def _belongs(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
