"""The style of a caption's text: as the network writes it, or as a sentence that can be published. Offsets follow."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MARKS = ",.;:!?"  # no space before them
_ENDS = ".!?…。！？।؟۔"
_CLOSING = "\"'”’)»"
_STOPS = {"CJK": "。", "HIRAGANA": "。", "KATAKANA": "。", "DEVANAGARI": "।"}  # by the script of the last letter; others: "."


def as_sentence(text: str, *, start: int = 0, is_finished: bool = True) -> tuple[str, list[int]]:
    """Return the text as a sentence, and for each of its code points (and its end) the offset in the new text.

    Before `start` it is kept as written. From there: no space before a comma; a capital at the beginning of the text; a full
    stop at the end if the caption is finished, in the way of its script. A removed space has the offset of what follows.
    """
    kept: list[str] = []
    offsets: list[int] = []
    for index, character in enumerate(text):
        offsets.append(len(kept))
        is_space_before_mark = character == " " and text[index + 1 : index + 2] in tuple(_MARKS)
        if index < start or not is_space_before_mark:
            is_first = start == 0 and character != " " and all(before == " " for before in kept)
            kept.append(_capital(character) if is_first else character)
    offsets.append(len(kept))
    sentence = "".join(kept)
    body = sentence.rstrip(_CLOSING + " ")
    if is_finished and body and body[-1] not in _ENDS and len(text) > start:
        written = offsets[start]
        sentence = sentence[:written] + sentence[written:].rstrip() + _stop(body)
    return sentence, offsets


def plain_form(text: str, style: str) -> tuple[str, list[int]]:
    """Return a written text as a network of a style spells it, and the offset in `text` of each of its code points (and its end).

    With the style `sentence` that is what `as_sentence` would make the text from: a space before marks, no full stop at the end;
    capitals are the tokenizer's affair. A text that is no such sentence stays as it is.
    """
    as_written = text, list(range(len(text) + 1))
    if style != "sentence" or text[-1:] not in {".", *_STOPS.values()}:
        return as_written
    characters: list[str] = []
    offsets: list[int] = []
    for index, character in enumerate(text[:-1]):
        if character in _MARKS and text[index + 1 : index + 2] == " " and text[index - 1 : index].isalnum():
            characters.append(" ")
            offsets.append(index)
        characters.append(character)
        offsets.append(index)
    plain = "".join(characters)
    return (plain, [*offsets, len(text)]) if as_sentence(plain)[0].lower() == text.lower() else as_written


def moved(offsets: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Return where text[start:end] is in the sentence."""
    return offsets[start], offsets[end - 1] + 1 if end > start else offsets[start]


def _capital(character: str) -> str:
    """Return the capital of a letter that has one of one code point."""
    capital = character.upper()
    return capital if len(capital) == 1 else character


def _stop(text: str) -> str:
    name = next((unicodedata.name(letter, "") for letter in reversed(text) if letter.isalnum()), "")
    return _STOPS.get(name.split(" ")[0], ".")
