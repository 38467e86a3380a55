"""JSON objects of request bodies: bounded, complete, and errors in plain words."""

from __future__ import annotations

import json
import re
from typing import Any

from service.errors import ServiceError

JSON_TYPES = {list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}

_MAX_COMMAS = 100_000
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of one, which may be one of a pair


def json_object(body: bytes) -> dict[str, Any]:
    """Return a body that is one JSON object of complete characters. Raises ServiceError."""
    document = load_object(body)
    if _SURROGATE.search(body) and has_surrogate(json.dumps(document, ensure_ascii=False)):
        raise ServiceError("broken_json", "the JSON has half of a surrogate pair, \\ud800 to \\udfff; send complete characters")
    return document


def load_object(body: bytes) -> dict[str, Any]:
    """Return a body that is one JSON object, whose texts may have half of a surrogate pair. Raises ServiceError."""
    if body.count(b",") > _MAX_COMMAS:  # which bounds the number of its values, and so the time that it takes
        raise ServiceError("broken_json", f"the JSON has more than {_MAX_COMMAS} commas; send one request")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        detail = f"the JSON cannot be read: {_json_reason(error)}; send one object in UTF-8"
        raise ServiceError("broken_json", detail) from error
    if not isinstance(document, dict):
        raise ServiceError("broken_json", f"the JSON is {JSON_TYPES.get(type(document), 'null')}; send an object")
    return document


def has_surrogate(text: str) -> bool:
    """Return whether a text has half of a surrogate pair, which cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _json_reason(error: Exception) -> str:
    """Return why JSON cannot be read, without the parser's text."""
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text at byte {error.start}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"
