"""Forms as multipart/form-data (RFC 7578, RFC 2046): the parts of a body that has been read, each with its bytes unchanged.

The usual parsers decode a part without a file name as text, which damages an image, and know no preamble, no white space after
a boundary and no lines that end with LF alone.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from service.errors import ServiceError

_MAX_BOUNDARY = 256  # bytes; RFC 2046 allows 70
_MAX_HEADERS = 16_384  # bytes of a part's headers
_MAX_LOOKALIKES = 1000  # lines that contain the boundary and are none
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FILE_NAME = re.compile(rb"(?i);\s*filename\*?\s*=")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form."""

    name: str
    data: bytes
    has_filename: bool
    charset: str  # of its content type, "" if it names none


def read_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """Yield the parts of a form in order. Raises ServiceError."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _broken("its content type has no boundary; leave the header Content-Type to your client")
    if len(boundary) > _MAX_BOUNDARY:
        raise _broken(f"its boundary has {len(boundary)} bytes; use one of at most 70")
    start, newline = -1, b""
    for delimiter in _delimiters(body, boundary):
        if start < 0:
            newline = b"\r\n" if delimiter[0].endswith(b"\r\n") else b"\n"
        else:
            end = delimiter.start() - len(newline)
            if body[end : delimiter.start()] != newline:
                continue  # a lone LF inside an image of a form with CRLF
            yield _part(body[start : max(start, end)])
        if delimiter[1]:
            return
        start = delimiter.end()
    raise _broken("its last boundary is missing; send it completely" if start >= 0 else "no line of it is its boundary")


def _delimiters(body: bytes, boundary: bytes) -> Iterator[re.Match[bytes]]:
    """Yield the lines that are the boundary; group 1 is the -- of the last one."""
    lookalikes = 0
    for match in re.finditer(rb"--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r?\n|\Z)", body):
        if match.start() == 0 or body[match.start() - 1 : match.start()] == b"\n":
            yield match
        elif (lookalikes := lookalikes + 1) > _MAX_LOOKALIKES:
            raise _broken("its boundary occurs inside its parts; use another one")


def _part(content: bytes) -> Part:
    """Return a part from its headers and data."""
    match = _BLANK_LINE.search(content, 0, _MAX_HEADERS)
    if match is None:
        raise _broken("the headers of a part have no end; an empty line must follow them")
    lines = _FOLD.sub(b" ", content[: match.start()]).splitlines()
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    disposition = headers.get(b"content-disposition", b"")
    name = parse_options_header(disposition.decode("latin-1"))[1].get(b"name")
    if name is None:
        raise _broken('a part has no name; write Content-Disposition: form-data; name="image"')
    charset = parse_options_header(headers.get(b"content-type", b"").decode("latin-1"))[1].get(b"charset", b"")
    data = _decoded(content[match.end() :], headers.get(b"content-transfer-encoding", b"").lower())
    has_filename = _FILE_NAME.search(disposition) is not None
    return Part(name[:1000].decode("utf-8", "backslashreplace"), data, has_filename, charset.decode("latin-1").lower())


def _decoded(data: bytes, transfer_encoding: bytes) -> bytes:
    """Return a part's data without its transfer encoding, which old clients use."""
    try:
        if transfer_encoding == b"base64":
            return binascii.a2b_base64(data)
        if transfer_encoding == b"quoted-printable":
            return binascii.a2b_qp(data)
    except binascii.Error as error:
        raise _broken("a part is not in its Content-Transfer-Encoding, base64; send the bytes without one") from error
    return data


def _broken(reason: str) -> ServiceError:
    return ServiceError("broken_multipart", f"the form cannot be read: {reason}")
