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
_MAX_HEADER = 2_048  # bytes of one that has parameters: reading them takes time that grows with the square
_MAX_CANDIDATES = 1000  # occurrences of the boundary, those inside a part too
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_TAIL = re.compile(rb"(--)?[ \t]*(?:\r?\n|\Z)")  # of a boundary
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
    for first, end, is_last in _delimiters(body, b"--" + boundary):
        if start < 0:
            newline = b"\r\n" if body[end - 2 : end] == b"\r\n" else b"\n"
        elif body[first - len(newline) : first] == newline:
            yield _part(body[start : max(start, first - len(newline))])
        else:
            continue  # after a lone LF inside an image of a form with CRLF
        if is_last:
            return
        start = end
    raise _broken("its last boundary is missing; send it completely" if start >= 0 else "no line of it is its boundary")


def _delimiters(body: bytes, marker: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield where each line that is the boundary starts and ends, and whether it is the last one."""
    at = body.find(marker)
    for _ in range(_MAX_CANDIDATES):
        if at < 0:
            return
        tail = _TAIL.match(body, at + len(marker))
        if tail and body[at - 1 : at] in (b"", b"\n"):
            yield at, tail.end(), tail[1] is not None
        at = body.find(marker, at + 1)
    raise _broken("its boundary occurs inside its parts; use another one")


def _part(content: bytes) -> Part:
    """Return a part from its headers and data."""
    match = _BLANK_LINE.search(content, 0, _MAX_HEADERS)
    if match is None:
        raise _broken("the headers of a part have no end; an empty line must follow them")
    lines = _FOLD.sub(b" ", content[: match.start()]).splitlines()
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    disposition = headers.get(b"content-disposition", b"")
    if max(len(disposition), len(headers.get(b"content-type", b""))) > _MAX_HEADER:
        raise _broken(f"a header of a part has more than {_MAX_HEADER} bytes; send a shorter file name")
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
