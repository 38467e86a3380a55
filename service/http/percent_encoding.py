"""Percent-encoding: bytes of URLs and URL-encoded forms to fields and text, in time that grows only with their length.

The standard library takes seconds for megabytes of percent signs, and replaces what is not UTF-8.
"""

from __future__ import annotations

import numpy as np

from service.errors import ServiceError, option_error

_PIECE = 1 << 20  # bytes that are decoded at once
_INVALID = 255
_HEX = np.full(256, _INVALID, np.uint8)  # the value of each hexadecimal digit
_HEX[np.frombuffer(b"0123456789", np.uint8)] = np.arange(10)
_HEX[np.frombuffer(b"abcdef", np.uint8)] = _HEX[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def percent_decode(data: bytes) -> bytes:
    """Return the bytes with each %XX replaced; a % that two hexadecimal digits do not follow is kept."""
    if b"%" not in data:
        return data
    pieces, start = [], 0
    while start < len(data):
        end = start + _PIECE
        if end < len(data) and (cut := data.find(b"%", end - 2, end)) >= 0:
            end = cut  # not in the middle of %XX
        pieces.append(_decode_piece(data[start:end]))
        start = end
    return b"".join(pieces)


def split_fields(data: bytes, max_fields: int, where: str) -> list[tuple[str, bytes]]:
    """Return the fields of a query or a URL-encoded form: names, and values that are still encoded.

    Raises ServiceError if there are more than `max_fields`.
    """
    pairs = [pair.partition(b"=") for pair in data.split(b"&", max_fields + 1) if pair]
    if len(pairs) > max_fields:
        raise ServiceError("invalid_option", f"the {where} has more than {max_fields} options; there are fewer")
    return [(decode_spaces(name)[:1000].decode("utf-8", "backslashreplace"), value) for name, _, value in pairs]


def decode_spaces(data: bytes) -> bytes:
    """Return the bytes of an encoded name or value, in which + is a space."""
    return percent_decode(data.replace(b"+", b" "))


def option_text(name: str, data: bytes, encoding: str = "utf-8") -> str:
    """Return the text of an option. Raises ServiceError (422) for bytes that are not text in that encoding."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        near = data[max(0, error.start - 10) : error.start + 10]
        detail = f"{name} has the bytes {near!r}, which are not {encoding.upper()}; send UTF-8, in which é is %C3%A9 in a URL"
        raise option_error(name, detail) from error


def _decode_piece(data: bytes) -> bytes:
    if len(data) < 3:
        return data
    values = np.frombuffer(data, np.uint8)
    digits = _HEX[values]
    is_escape = (values[:-2] == ord("%")) & (digits[1:-1] != _INVALID) & (digits[2:] != _INVALID)
    at = np.flatnonzero(is_escape)
    decoded, is_kept = values.copy(), np.ones(len(values), bool)
    decoded[at] = digits[at + 1] * 16 + digits[at + 2]
    is_kept[at + 1] = is_kept[at + 2] = False
    return decoded[is_kept].tobytes()
