"""Images as text: base64 and data: URLs (RFC 2397), in the variants that clients write."""

from __future__ import annotations

import base64
import binascii

from model import sniff_format
from service.errors import ServiceError
from service.http.percent_encoding import percent_decode

_INVISIBLE = " \t\r\n\f\v\u00a0\u200b\ufeff"  # around the text: spaces, a byte order mark
_WHITE_SPACE = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MAX_HEAD = 4096  # bytes of a data: URL before its comma


def decode_image_text(text: str) -> bytes:
    """Return the bytes of an image as base64 or a data: URL. Raises ServiceError.

    White space, percent-encoding, the URL-safe alphabet and missing padding are accepted, and any parameters, letter case and
    white space of the URL. The bytes of a data: URL without base64 must begin like an image.
    """
    text = text.strip(_INVISIBLE)
    if not text.isascii():
        first = next(character for character in text if not character.isascii())
        raise _broken(f"it contains {first!r}")
    data = text.encode("ascii")
    if data[:7].lower() == b"data%3a":
        data = percent_decode(data)
    if data[:5].lower() == b"data:":
        return _decode_data_url(data[5:])
    return _decode(percent_decode(data))


def image_of_part(data: bytes) -> bytes:
    """Return the image of a form's part: its bytes, or what they say as base64 or a data: URL. Raises ServiceError."""
    head = data[:100].strip()
    if sniff_format(data) or not head.isascii():
        return data
    if head[:5].lower() in (b"data:", b"data%"):
        return decode_image_text(data.decode("utf-8", "replace"))
    try:
        decoded = decode_image_text(data.decode("ascii"))
    except (ServiceError, UnicodeDecodeError):
        return data
    return decoded if sniff_format(decoded) else data


def _decode_data_url(rest: bytes) -> bytes:
    """Return the bytes of a data: URL without its first five characters."""
    if b"," not in rest[:_MAX_HEAD]:
        rest = percent_decode(rest)
    comma = rest.find(b",")
    while comma >= 0 and rest.count(b'"', 0, min(comma, _MAX_HEAD)) % 2:  # in a quoted parameter
        comma = rest.find(b",", comma + 1, _MAX_HEAD)
    if comma < 0:
        raise ServiceError("broken_base64", "the data: URL has no comma; write data:image/jpeg;base64,…")
    data = percent_decode(rest[comma + 1 :])
    if b"base64" in [parameter.strip().lower() for parameter in rest[:comma].split(b";")]:
        return _decode(data)
    if sniff_format(data):
        return data
    try:
        decoded = _decode(data)  # base64 that is not named
    except ServiceError:
        decoded = b""
    if sniff_format(decoded):
        return decoded
    raise ServiceError("broken_base64", "the data: URL holds no image and names no base64; write data:image/jpeg;base64,…")


def _decode(data: bytes) -> bytes:
    plain = data.translate(_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
    if not plain:
        raise ServiceError("empty_body", "the text of 'image' is empty; send an image as base64")
    if others := plain.translate(None, _ALPHABET):
        raise _broken(f"it contains {others[:1].decode('latin-1')!r}")
    if len(plain) % 4 == 1:
        raise _broken(f"it has {len(plain)} characters, one too many or three too few")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4))
    except (binascii.Error, ValueError) as error:
        raise _broken("it cannot be decoded") from error


def _broken(reason: str) -> ServiceError:
    return ServiceError("broken_base64", f"'image' is not base64: {reason}; encode the image's bytes")
