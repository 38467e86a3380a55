"""Captions in cells of a table: one caption, a list written as text (JSON, Python or numpy), or an empty value."""

from __future__ import annotations

import json
import re

EMPTY_VALUES = ("", "nan", "NaN", "null", "NULL", "None", "<NA>")  # pandas and databases write these for a missing caption
_ITEM = re.compile(r"""[\s,]*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|None|nan)""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}
_MAX_CODE_POINT = 0x10FFFF


def captions_in_cell(text: str) -> list[str | None]:
    """Return the captions in a cell, None for an empty one. A text that begins with [ and is no list is a caption."""
    text = text.strip()
    if text in EMPTY_VALUES:
        return [None]
    if text.startswith("[") and text.endswith("]"):
        captions = _json_list(text)
        captions = _python_list(text[1:-1]) if captions is None else captions
        if captions is not None:
            return captions
    return [text]


def caption_cell(text: str) -> str:
    """Return a cell that `captions_in_cell` reads as exactly this caption."""
    return text if captions_in_cell(text) == [text] else json.dumps([text], ensure_ascii=False)


def _json_list(text: str) -> list[str | None] | None:
    """Return the captions of a JSON list, None if it is no list of texts; NaN is read as None."""
    try:
        values = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) and all(value is None or isinstance(value, str) for value in values) else None


def _python_list(inside: str) -> list[str | None] | None:
    """Return the captions of a list that Python or numpy printed, None if it is none. numpy writes no commas."""
    captions: list[str | None] = []
    position = 0
    while match := _ITEM.match(inside, position):
        literal = match[1] if match[1] is not None else match[2]
        captions.append(None if literal is None else _ESCAPE.sub(_unescape, literal))
        position = match.end()
    return captions if captions and not inside[position:].strip(" \t\r\n,") else None


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(min(int(code[1:], 16), _MAX_CODE_POINT))
    return _ESCAPES.get(code, code if code in "'\"\\" else f"\\{code}")
