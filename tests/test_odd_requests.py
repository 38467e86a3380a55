"""Bodies as clients really write them: texts, forms and compressed bodies that are read. The next report is one more row."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import urllib.parse
import zlib

import pytest

from service.http.content_encoding import PIECE_BYTES, Decompressor
from service.http.image_text import decode_image_text
from service.http.multipart import read_parts
from service.http.percent_encoding import percent_decode
from tests.conftest import problem
from tests.odd_requests import DISPOSITION, FORM, JSON, POST_PATHS, URL_ENCODED, form, part

gzipped = functools.partial(gzip.compress, mtime=0)  # names of tests do not depend on the time


def lines(text: str, width: int = 76) -> str:
    return "\r\n".join(text[start : start + width] for start in range(0, len(text), width))


IMAGE_TEXTS = {  # of an image's base64, by what is unusual about it
    "plain": lambda b: b,
    "white space around": lambda b: f" \r\n\t{b}\n ",
    "byte order mark": lambda b: f"\ufeff{b}",
    "line breaks": lines,
    "no padding": lambda b: b.rstrip("="),
    "more padding": lambda b: b + "==",
    "URL-safe alphabet": lambda b: b.replace("+", "-").replace("/", "_"),
    "percent-encoded": urllib.parse.quote_plus,
    "percent-encoded in lower case": lambda b: b.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "data: URL": lambda b: f"data:image/jpeg;base64,{b}",
    "data: URL, white space around": lambda b: f" data:image/jpeg;base64,{b}\n",
    "data: URL, white space before base64": lambda b: f"data:image/jpeg; base64,{b}",
    "data: URL, white space everywhere": lambda b: f"data: image/jpeg ; base64 , {b}",
    "data: URL, no media type": lambda b: f"data:;base64,{b}",
    "data: URL, upper case": lambda b: f"DATA:IMAGE/JPEG;BASE64,{b}",
    "data: URL, charset": lambda b: f"data:image/jpeg;charset=utf-8;base64,{b}",
    "data: URL, name with a comma": lambda b: f'data:image/jpeg;name="a,b;base64.jpg";base64,{b}',
    "data: URL, base64 before another parameter": lambda b: f"data:image/jpeg;base64;name=a.jpg,{b}",
    "data: URL, percent-encoded payload": lambda b: "data:image/jpeg;base64," + urllib.parse.quote(b, safe=""),
    "data: URL, percent-encoded line breaks": lambda b: "data:image/jpeg;base64," + urllib.parse.quote(lines(b), safe=""),
    "data: URL, percent-encoded as a whole": lambda b: urllib.parse.quote(f"data:image/jpeg;base64,{b}", safe=""),
    "data: URL, bytes percent-encoded (RFC 2397)": lambda b: "data:image/jpeg," + urllib.parse.quote(base64.b64decode(b)),
    "data: URL, base64 that is not named": lambda b: f"data:image/jpeg,{b}",
}


JPEG = "Content-Type: image/jpeg"
FORMS = {  # of an image's bytes: content type and body
    "usual": lambda i: (FORM, form(part(i, 'form-data; name="image"; filename="a.jpg"', JPEG))),
    "no file name": lambda i: (FORM, form(part(i))),
    "a content type and no file name": lambda i: (FORM, form(part(i, 'form-data; name="image"', JPEG))),
    "an encoded file name alone": lambda i: (FORM, form(part(i, "form-data; name=\"image\"; filename*=UTF-8''%C3%A9.jpg", JPEG))),
    "two file names": lambda i: (FORM, form(part(i, "form-data; name=image; filename=a.jpg; filename*=utf-8''b.jpg"))),
    "an empty file name": lambda i: (FORM, form(part(i, 'form-data; name="image"; filename=""'))),
    "headers in other cases and folded": lambda i: (FORM, form(part(i, 'form-data;\r\n\tNAME="image"').replace(b"Con", b"CON"))),
    "base64 in a text part": lambda i: (FORM, form(part(base64.encodebytes(i)))),
    "a data: URL in a text part": lambda i: (FORM, form(part(b"data:image/jpeg; base64," + base64.b64encode(i)))),
    "a transfer encoding": lambda i: (FORM, form(part(base64.encodebytes(i), *DISPOSITION, "Content-Transfer-Encoding: Base64"))),
    "an option before it": lambda i: (FORM, form(part(b"en", 'form-data; name="language"'), part(i))),
    "a preamble": lambda i: (FORM, b"This is a multi-part message in MIME format.\r\n" + form(part(i))),
    "an empty line first": lambda i: (FORM, b"\r\n" + form(part(i))),
    "an epilogue": lambda i: (FORM, form(part(i)) + b"\r\nepilogue --XX\r\n"),
    "no line break at the end": lambda i: (FORM, form(part(i)).rstrip()),
    "padding after the boundaries": lambda i: (
        FORM,
        form(part(i)).replace(b"--XX\r\n", b"--XX \t \r\n").replace(b"XX--", b"XX--  "),
    ),
    "lines that end with LF": lambda i: (FORM, form(part(i, end="\n"), end=b"\n")),
    "a quoted boundary": lambda i: ('multipart/form-data; boundary="XX"', form(part(i))),
    "a boundary with spaces and signs": lambda i: (
        'Multipart/Form-Data; charset=utf-8; boundary="a (b)+?"',
        form(part(i)).replace(b"--XX", b"--a (b)+?"),
    ),
    "the boundary inside a line": lambda i: (FORM, b"not --XX\r\n" + form(part(i))),
    "URL-encoded": lambda i: (URL_ENCODED, urllib.parse.urlencode({"image": base64.b64encode(i), "language": "en"}).encode()),
    "URL-encoded with plus signs as they are": lambda i: (URL_ENCODED, b"language=en&image=" + base64.b64encode(i)),
    "URL-encoded data: URL": lambda i: (URL_ENCODED, b"image=data:image/jpeg;base64," + base64.b64encode(i)),
    "JSON as curl -d sends it": lambda i: (URL_ENCODED, b'{"image": "' + base64.b64encode(i) + b'"}'),
    "JSON with a byte order mark": lambda i: (
        JSON,
        b"\xef\xbb\xbf" + json.dumps({"image": base64.b64encode(i).decode()}).encode(),
    ),
    "JSON of another name": lambda i: ("application/vnd.api+json", b'{"image": "' + base64.b64encode(i) + b'"}'),
}


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODINGS = {  # header, and what the body becomes
    "gzip": ("gzip", gzipped),
    "upper case": ("GZIP", gzipped),
    "x-gzip": ("x-gzip", gzipped),
    "gzip in two members": ("gzip", lambda d: gzipped(d[:500]) + gzipped(d[500:])),
    "gzip with padding": ("gzip", lambda d: gzipped(d) + b"\0" * 600),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
    "identity and gzip": ("identity, gzip", gzipped),
    "an empty value": ("", bytes),
}


@pytest.fixture(scope="module")
def text_of_image(client, image_bytes) -> str:
    return client.post("/v1/captions", content=image_bytes, params={"maps": "none"}).json()["captions"][0]["text"]


def check(response, text: str) -> None:
    assert response.status_code == 200, response.text
    assert response.json()["captions"][0]["text"] == text


@pytest.mark.parametrize("name", IMAGE_TEXTS)
def test_an_image_as_text_is_read(client, image_bytes, text_of_image, name):
    text = IMAGE_TEXTS[name](base64.b64encode(image_bytes).decode())
    assert decode_image_text(text) == image_bytes
    check(client.post("/v1/captions", json={"image": text, "maps": "none"}), text_of_image)
    batch = client.post("/v1/captions/batch", json={"images": [text], "maps": "none"}).json()["data"]
    assert batch[0]["captions"][0]["text"] == text_of_image


@pytest.mark.parametrize("name", FORMS)
def test_an_image_in_a_form_is_read(client, image_bytes, text_of_image, name):
    kind, body = FORMS[name](image_bytes)
    check(client.post("/v1/captions", content=body, headers={"content-type": kind}), text_of_image)


def test_the_bytes_of_a_part_are_unchanged_whatever_they_are(client, photo, text_of_image):
    """An image of a form with CRLF may have a line feed and the boundary in it, one with LF may end with CR."""
    png = photo(120, 90)
    inside = png[:-12] + b"\0\0\0\6teSt\n--XX\n\0\0\0\0" + png[-12:]  # in a chunk that decoders skip
    plain = client.post("/v1/captions", content=png).json()["captions"][0]["text"]
    assert [entry.data for entry in read_parts(FORM, form(part(inside)))] == [inside]
    for body in (form(part(inside)), form(part(png + b"\r", end="\n"), end=b"\n"), form(part(png + b"\r\n\r\n"))):
        check(client.post("/v1/captions", content=body, headers={"content-type": FORM}), plain)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("form_name", ["usual", "JSON with a byte order mark"])
def test_a_compressed_body_is_read(client, image_bytes, text_of_image, name, form_name):
    encoding, compress = ENCODINGS[name]
    kind, body = FORMS[form_name](image_bytes)
    headers = {"content-type": kind, "content-encoding": encoding}
    check(client.post("/v1/captions", content=compress(body), headers=headers), text_of_image)


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("br", b"x", "unsupported_encoding"),
        ("zstd", b"x", "unsupported_encoding"),
        ("gzip, gzip", gzipped(gzipped(b"x")), "unsupported_encoding"),
        ("gzip", b"x" * 100, "broken_encoding"),
        ("gzip", gzipped(b"x" * 100)[:-5], "broken_encoding"),
        ("gzip", gzipped(b"x" * 100) + b"more", "broken_encoding"),
        ("gzip", gzipped(b"") * 1001, "broken_encoding"),
        ("deflate", zlib.compress(b"x") + zlib.compress(b"x"), "broken_encoding"),
        ("gzip", gzipped(b""), "empty_body"),
        ("gzip", gzipped(bytes(3_100_000)), "body_too_large"),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(client, encoding, body, code):
    for path in POST_PATHS[:1] if code == "empty_body" else POST_PATHS:
        response = client.post(path, content=body, headers={"content-encoding": encoding})
        problem(response, code)
        assert ("accept-encoding" in response.headers) == (code == "unsupported_encoding")


def test_compressed_bytes_that_stand_for_nothing_are_limited_too(client):
    def chunks():
        yield b"\x1f\x8b\x08\x08" + bytes(6)  # a gzip header whose file name has no end
        for _ in range(40):
            yield b"n" * 100_000

    problem(client.post("/v1/captions", content=chunks(), headers={"content-encoding": "gzip"}), "body_too_large")


def test_a_bomb_is_decompressed_no_further_than_the_caller_reads():
    bomb = gzipped(bytes(100_000_000))
    pieces = Decompressor("gzip").feed(bomb)
    assert [len(next(pieces)) for _ in range(3)] == [PIECE_BYTES] * 3


@pytest.mark.parametrize("data", [b"%", b"%%41%4", b"100%", b"a%2Bb%2bc%0", b"%zz%C3%A9", b"%" * 50, b"%41" * 20])
@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) - 2])
def test_percent_decoding_equals_the_standard_library_at_every_cut(data, size):
    long = b"x" * size + data
    assert percent_decode(long) == urllib.parse.unquote_to_bytes(long)
