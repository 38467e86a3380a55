"""Content-Encoding of request bodies: gzip and deflate, decompressed in small pieces so that the caller can stop at a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from service.errors import ServiceError

PIECE_BYTES = 1 << 18  # of decompressed data at once
_ACCEPTED = "gzip, deflate, identity"
_MAX_MEMBERS = 1000  # of a gzip file; each costs some time, even an empty one
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's window bits


def decompressor(content_encodings: Sequence[str]) -> Decompressor | None:
    """Return what decompresses a body with these headers Content-Encoding, None for one that is not compressed.

    Raises ServiceError (415) for other codings, and for several.
    """
    names = [name.strip().lower() for header in content_encodings for name in header.split(",")]
    codings = [name.removeprefix("x-") for name in names if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in ("gzip", "deflate"):
        detail = f"the content encoding is {', '.join(codings)[:200]!r}; send one of {_ACCEPTED}"
        raise ServiceError("unsupported_encoding", detail, headers={"Accept-Encoding": _ACCEPTED})
    return Decompressor(codings[0])


class Decompressor:
    """Decompresses one body: gzip, of several members too, or deflate with or without zlib's header."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream: Any = None  # zlib's type has no public name
        self._num_members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what more compressed bytes stand for, in pieces of at most PIECE_BYTES. Raises ServiceError (400)."""
        is_full = False
        while data or is_full:
            if self._stream is None or self._stream.eof:
                if self._num_members and not (data := data.lstrip(b"\0")):  # padding
                    return
                self._start_member(data)
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise self._broken("its bytes are damaged") from error
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            is_full = len(piece) == PIECE_BYTES and not self._stream.eof
            if piece:
                yield piece

    def finish(self) -> None:
        """Raises ServiceError (400) if the body ended too early."""
        if self._stream is not None and not self._stream.eof:
            raise self._broken("it ends too early")

    def _start_member(self, data: bytes) -> None:
        deflate = _ZLIB if data[0] & 15 == zlib.DEFLATED else _RAW  # many clients send no header
        bits = deflate if self._coding == "deflate" else _GZIP
        self._num_members += 1
        if self._num_members > (_MAX_MEMBERS if bits == _GZIP else 1):
            raise self._broken("more follows its end")
        self._stream = zlib.decompressobj(bits)

    def _broken(self, reason: str) -> ServiceError:
        detail = f"the body cannot be decompressed as {self._coding}: {reason}; compress it again, or send it as it is"
        return ServiceError("broken_encoding", detail)
