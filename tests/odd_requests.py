"""Parts of requests as clients write them: content types, paths, and forms."""

from __future__ import annotations

JSON, FORM, URL_ENCODED = "application/json", "multipart/form-data; boundary=XX", "application/x-www-form-urlencoded"
POST_PATHS = ("/v1/captions", "/v1/captions/batch", "/v1/explanations")
DISPOSITION = ('form-data; name="image"',)


def part(data: bytes, disposition: str = 'form-data; name="image"', *headers: str, end: str = "\r\n") -> bytes:
    """Return a multipart part after its boundary line."""
    return end.join([f"Content-Disposition: {disposition}", *headers, "", ""]).encode() + data


def form(*parts: bytes, end: bytes = b"\r\n") -> bytes:
    """Return a form with the boundary XX."""
    return b"".join(b"--XX" + end + content + end for content in parts) + b"--XX--" + end
