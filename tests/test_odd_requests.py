"""Requests as clients really write them: read as they are meant, or refused in our own words. The next report is one more row."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import re
import urllib.parse
import zlib
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from model import Captioner, CaptionNetwork, Checkpoint, ConfigError
from service import Settings, create_app
from service.http.content_encoding import PIECE_BYTES, Decompressor
from service.http.dialects.native.schemas import MapOptions
from service.http.docs_page import PAGE_POLICY
from service.http.image_text import decode_image_text
from service.http.multipart import read_parts
from service.http.paths import check_root_path
from service.http.percent_encoding import percent_decode
from service.http.proxies import proxy_networks
from tests.conftest import problem, tiny_config
from tests.test_security import routes_of

gzipped = functools.partial(gzip.compress, mtime=0)  # names of tests do not depend on the time

JSON, FORM, URL_ENCODED = "application/json", "multipart/form-data; boundary=XX", "application/x-www-form-urlencoded"
POST_PATHS = ("/v1/captions", "/v1/captions/batch", "/v1/explanations")


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


def part(data: bytes, disposition: str = 'form-data; name="image"', *headers: str, end: str = "\r\n") -> bytes:
    """Return a multipart part after its boundary line."""
    return end.join([f"Content-Disposition: {disposition}", *headers, "", ""]).encode() + data


def form(*parts: bytes, end: bytes = b"\r\n") -> bytes:
    """Return a form with the boundary XX."""
    return b"".join(b"--XX" + end + content + end for content in parts) + b"--XX--" + end


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
DISPOSITION = ('form-data; name="image"',)


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


REFUSED = {  # content type, body, code, and what the detail says
    "curl -d of a JPEG": (URL_ENCODED, lambda i: re.sub(rb"[\r\n\0]", b"", i), "broken_image", "--data-binary"),
    "the same with its type": ("image/jpeg", lambda i: re.sub(rb"[\r\n\0]", b"", i), "broken_image", "--data-binary"),
    "line breaks lost alone": (URL_ENCODED, lambda i: re.sub(rb"[\r\n]", b"", i)[:900], "broken_image", "--data-binary"),
    "curl -d of a PNG": (URL_ENCODED, lambda i: b"\x89PNG\x1aIHDR" + i, "broken_image", "--data-binary"),
    "curl -d image=@": (URL_ENCODED, lambda i: b"image=@photo.jpg&num_beams=2", "broken_base64", "curl -F"),
    "a form without an image": (URL_ENCODED, lambda i: b"num_beams=2", "invalid_option", "no part 'image'"),
    "a part without a name": (FORM, lambda i: form(part(i, "form-data")), "broken_multipart", "no name"),
    "a form without end": (FORM, lambda i: form(part(i))[:-8], "broken_multipart", "last boundary"),
    "no boundary": ("multipart/form-data", lambda i: form(part(i)), "broken_multipart", "has no boundary"),
    "another boundary": (FORM.replace("XX", "Y"), lambda i: form(part(i)), "broken_multipart", "no line of it"),
    "many parts": (FORM, lambda i: form(*[part(b"1", f"form-data; name=a{n}") for n in range(10_000)]), "broken_multipart", "40"),
    "many lookalikes": (FORM, lambda i: form(part(i + b"x--XX\r\n" * 2000)), "broken_multipart", "inside its parts"),
    "two images": (FORM, lambda i: form(part(i), part(i)), "invalid_option", "exactly one"),
    "no image": (FORM, lambda i: form(part(b"x", 'form-data; name="file"; filename="x"')), "invalid_option", "'file'"),
    "text of Latin-1 in a part": (
        FORM,
        lambda i: form(part(i), part(b"caf\xe9", "form-data; name=prompt")),
        "invalid_option",
        "UTF-8",
    ),
    "text of Latin-1 in a form": (URL_ENCODED, lambda i: b"prompt=caf%E9&image=/9j/", "invalid_option", "UTF-8"),
    "5,000 digits": (JSON, lambda i: b'{"image": "/9j/", "num_beams": ' + b"9" * 5000 + b"}", "broken_json", "too many digits"),
    "deep JSON": (JSON, lambda i: b'{"image": ' + b"[" * 100_000, "broken_json", "too deeply"),
    "half a surrogate pair": (JSON, lambda i: b'{"image": "/9j/", "prompt": "a\\ud800"}', "invalid_option", "surrogate"),
    "half a pair in a name": (JSON, lambda i: b'{"image": "/9j/", "\\udfff": 1}', "invalid_option", "surrogate"),
    "a list in JSON": (JSON, lambda i: b"[1]", "broken_json", "a list"),
    "null in JSON": (JSON, lambda i: b"null", "broken_json", "null"),
    "a wrong letter in base64": (JSON, lambda i: b'{"image": "/9j/\\u00e9"}', "broken_base64", "'\u00e9'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_do(client, image_bytes, name):
    kind, make, code, text = REFUSED[name]
    body = problem(client.post("/v1/captions", content=make(image_bytes), headers={"content-type": kind}), code)
    assert text in body["detail"]


@pytest.mark.parametrize("query", ["prompt=caf%E9", "language=%ff", "%E9=1", "map_size=%C3", "color=%80"])
@pytest.mark.parametrize("path", ["/v1/captions", "/v1/explanations"])
def test_a_query_that_is_not_utf8_is_a_422(client, image_bytes, query, path):
    problem(client.post(f"{path}?{query}", content=image_bytes), "invalid_option")


@pytest.mark.parametrize("query", ["prompt=caf%C3%A9%20au+lait", "prompt=caf\u00e9 au lait"])
def test_a_prompt_of_utf8_is_the_start_of_the_caption(client, image_bytes, query):
    response = client.post(f"/v1/captions?{query}", content=image_bytes)
    assert response.json()["captions"][0]["text"].startswith("caf\u00e9 au lait")


FORBIDDEN = re.compile(
    r"0x[0-9a-f]{6}|object at|Traceback|Expecting|Extra data|delimiter|codec|decode byte|Incorrect padding|base64-encoded"
    r"|recursion|int_max_str|Input should|unable to parse|Errno|No such file|site-packages|\.py\b|pydantic|starlette|multipart\."
    r"|Expected boundary|Did not|Safetensor|Repository Not|zlib|Error \d|NoneType|/tmp|/home"
)
MALFORMED: dict[str, tuple[str, bytes]] = {
    **{
        f"JSON {number}": (JSON, body)
        for number, body in enumerate(
            [
                b"{", b"", b"\xff\xfe{", b'{"image": }', b'{"image": "a", }', b'{"image": "\xff"}', b'"\\ud800"', b"[" * 100_000,
                b'{"num_beams": ' + b"9" * 5000 + b"}", b'{"image": "====", "num_beams": 1e999}', b'{"image": NaN}', b"1",
                b'{"image": "/9j/", "temperature": NaN}', b'{"image": "/9j/", "temperature": -Infinity}', b'{"image": "a"}',
                b'{"image": "/9j/", "seed": ' + b"9" * 4000 + b"}", b'{"image": "/9j/", "top_p": ' + b"9" * 4000 + b"}",
                b'{"image": "/9j/", "num_beams": {"a": [1]}}', b'{"image": "/9j/", "strategy": null, "reliance": "yes"}',
                b'{"image": "/9j/", "prompt": "\\ud800"}', b'{"image": "\\ud800"}', b'{"image": "/9j/", "\\ud800": 1}',
                b'{"image": "data:image/jpeg;base64,%%%"}', b'{"image": "data:"}', b'{"image": "data:,%FF%D8%FF"}',
                b'{"image": {"a": 1}}', b'{"images": ["/9j/", "*", "", "data:x"]}', b'{"images": [1]}', b'{"url": "\\ud800"}',
                b'{"image": "/9j/", "maps": "\\u0000", "map_size": "9999x1", "language": "\\u0000"}', b"{}" * 2, b"'",
                b'{"checkpoint": "\\u0000"}', b'{"checkpoint": "hub:a/b"}', b'{"checkpoint": "/etc"}', b'{"checkpoint": 5}',
            ]
        )
    },
    **{
        f"form {number}": (kind, body)
        for number, (kind, body) in enumerate(
            [
                (FORM, b""), (FORM, b"--XX"), (FORM, b"--XX--"), (FORM, b"--XX\r\n\r\n--XX--"), (FORM, form(b"\xff\r\n\r\n")),
                (FORM, form(part(b"x", "\xff"))), (FORM, form(part(b"\xff", "form-data; name=prompt"))),
                (FORM, b"--XX\r\n" * 999),
                (FORM, form(part(b"x", *DISPOSITION, "Content-Transfer-Encoding: base64"))), ("multipart/form-data", b"x"),
                (FORM, form(part(b"x", *DISPOSITION, "Content-Type: text/plain; charset=zip"))),
                (URL_ENCODED, b"image=%&image=%"),
                ("multipart/form-data; boundary=" + "b" * 500, b"x"), (URL_ENCODED, b"%=%&" * 99), (URL_ENCODED, b"\0=\xff"),
                ('multipart/form-data; boundary="', b"x"), ("image/jpeg", b"\xff\xd8\xff"),
                ("image/png", b"\x89PNG\r\n\x1a\nIHDR"),
                ("image/jpeg", b"\xff\xd8\xff" + bytes(range(256)) * 9), ("image/webp", b"RIFF\0\0\0\0WEBPVP8 "), ("\xff", b"\0"),
                ("application/octet-stream", b"II*\0" + b"\xff" * 99), ("text/plain", b"x"), ("", b"GIF89a"), (";;;", b"BM"),
            ]
        )
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def loading(tiny_captioner, tmp_path_factory):
    """Return a client with an administrator's key."""
    keys = tmp_path_factory.mktemp("keys") / "admin"
    keys.write_text("admin\n")
    app = create_app({"tiny": tiny_captioner}, Settings(admin_keys_file=str(keys)))
    with TestClient(app, raise_server_exceptions=False, headers={"x-api-key": "admin"}) as client:
        yield client


@pytest.mark.parametrize("name", MALFORMED)
def test_no_error_has_words_of_a_library_an_address_or_a_path_of_the_machine(loading, name):
    kind, body = MALFORMED[name]
    for path in (*POST_PATHS, "/v1/models/tiny/load", "/v1/models/%ff/load", "/v1/%00"):
        for accept in ("*/*", "text/event-stream", "text/plain") if path == POST_PATHS[0] else ("*/*",):
            response = loading.post(path, content=body, headers={"content-type": kind.encode("latin-1"), "accept": accept})
            assert response.status_code < 500, response.text
            assert response.status_code >= 400 or "batch" in path
            assert not FORBIDDEN.search(response.text), response.text


def test_a_checkpoint_that_cannot_be_loaded_is_explained_without_paths_of_the_machine(loading, tmp_path, caplog):
    (tmp_path / "config.json").write_text("{")
    for source in (str(tmp_path / "missing"), str(tmp_path), "hub:no/such", "hub:", "a\0b"):
        response = loading.post("/v1/models/tiny/load", json={"checkpoint": source})
        detail = problem(response, "invalid_option")["detail"]
        assert not FORBIDDEN.search(detail.replace(repr(source), "")), detail
        assert str(tmp_path) not in detail.replace(repr(source), "")
    assert "config.json" in caplog.text, "the log has the reason"


@pytest.mark.parametrize("under", ["", "/captioner", "/a/b"])
def test_a_slash_at_the_end_is_no_redirect_on_any_route(tiny_captioner, image_bytes, under):
    app = create_app({"tiny": tiny_captioner}, Settings(root_path=under))
    with TestClient(app, follow_redirects=False, headers={"host": "evil.example"}) as client:
        for route in routes_of(app):
            for method in sorted(getattr(route, "methods", None) or ()):
                path = re.sub(r"\{[^}]*\}", "method", route.path)
                paths = [f"{root}{path}{slash}" for root in ("", under) for slash in ("", "/")]
                answers = [client.request(method, path, content=image_bytes) for path in paths]
                assert len({answer.status_code for answer in answers}) == 1, path
                assert not 300 <= answers[0].status_code < 400, path
                assert answers[0].status_code not in (404, 405), path
                assert not any("evil.example" in answer.text or "location" in answer.headers for answer in answers)
        assert client.post("/v1/captions//").status_code == 404


def test_page_and_document_work_under_a_path(tiny_captioner):
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(root_path="captioner/"))) as client:
        assert client.get("/captioner/openapi.json").json()["servers"] == [{"url": "/captioner"}]
        page = client.get("/captioner/docs")
        assert page.headers["content-security-policy"] == PAGE_POLICY
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) == 4
        for file in files:
            assert client.get(file).status_code == client.get(file.removeprefix("/captioner")).status_code == 200
        assert '"/captioner/openapi.json"' in client.get("/docs/start.js").text
        assert client.get("/captioner/nowhere").json()["type"] == "/captioner/problems/unknown_path"


def test_page_needs_no_other_host_and_is_absent_if_it_is_off(client, tiny_captioner):
    for path in ("/docs", "/docs/start.js"):
        assert "//" not in client.get(path).text.replace("<!DOCTYPE", "")
    assert client.get("/openapi.json").json().get("servers", []) == []
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(docs=False))) as closed:
        assert {closed.get(path).status_code for path in ("/docs", "/docs/start.js", "/openapi.json")} == {404}


@pytest.mark.parametrize("text", ["https://x/y", "/a?b", "/a b", '/"', "//x//y", "/\u00e9"])
def test_a_root_path_that_is_none_is_an_error(text):
    with pytest.raises(ConfigError, match="root_path"):
        check_root_path(text)


def test_under_v1_the_proxy_removes_the_path(tiny_captioner, image_bytes):
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(root_path="/v1"))) as client:
        assert client.post("/v1/captions", content=image_bytes).status_code == 200


FORWARDED = {  # what arrives, and whether two requests with it are of one client: then the second is a 429
    "nothing": ([{}, {}], 429),
    "the same client": ([{"x-forwarded-for": "1.2.3.4"}] * 2, 429),
    "another client": ([{"x-forwarded-for": "1.2.3.4"}, {"x-forwarded-for": "1.2.3.5"}], 200),
    "a client that writes addresses before its own": (
        [{"x-forwarded-for": "9.9.9.1, 1.2.3.4"}, {"x-forwarded-for": "9.9.9.2, 1.2.3.4"}],
        429,
    ),
    "two proxies": ([{"x-forwarded-for": "1.2.3.4, 10.1.1.1"}, {"x-forwarded-for": "1.2.3.4, 10.1.1.2"}], 429),
    "ports": ([{"x-forwarded-for": "1.2.3.4:1000"}, {"x-forwarded-for": "1.2.3.4:2000"}], 429),
    "IPv6": ([{"x-forwarded-for": "[2001:db8::1]:80"}, {"x-forwarded-for": "2001:db8::2"}], 200),
    "one address in two forms": ([{"x-forwarded-for": "::ffff:1.2.3.4"}, {"x-forwarded-for": "1.2.3.4"}], 429),
    "what is no address, then the proxy alone": ([{"x-forwarded-for": "junk"}, {}], 429),
    "what is no address": ([{"x-forwarded-for": "x" * 9000}, {"x-forwarded-for": "unknown, , ;\x7f"}], 429),
}


@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("trusted", ["10.0.0.0/8", "::ffff:0:0/96, 10.0.0.0/8, 192.168.0.1", ""])
def test_the_forwarded_address_is_the_client_for_trusted_proxies_only(tiny_captioner, name, trusted):
    headers, expected = FORWARDED[name]
    for proxy in ("10.0.0.7", "::ffff:10.0.0.7", "11.0.0.7"):
        app = create_app({"tiny": tiny_captioner}, Settings(trusted_proxies=trusted, requests_per_minute=1))
        client = TestClient(app, client=(proxy, 5000))
        first, second = (client.post("/v1/captions", headers=values).status_code for values in headers)
        is_trusted = trusted and proxy != "11.0.0.7"
        assert (first, second) == (400, 429 if expected == 429 or not is_trusted else 400), proxy


@pytest.mark.parametrize("text", ["*", "localhost", "10.0.0.1/8", "10.0.0.0/8;11.0.0.0/8"])
def test_proxies_that_are_no_networks_are_an_error(text):
    with pytest.raises(ConfigError, match="trusted_proxies"):
        proxy_networks(text)


def test_an_explanation_has_the_forms_of_a_caption(client, image_bytes):
    params = {"caption": "a brown dog\nruns"}
    answers = {
        accept: client.post("/v1/explanations", content=image_bytes, params=params, headers={"accept": accept})
        for accept in ("text/plain", "image/png", "text/html", "application/json")
    }
    assert all(answer.headers["content-type"].startswith(accept) for accept, answer in answers.items())
    assert answers["text/plain"].text == "a brown dog runs\n"
    problem(client.post("/v1/explanations", headers={"accept": "text/event-stream"}), "not_acceptable")


def test_text_has_one_caption_in_each_line(client, image_bytes):
    params = {"strategy": "sample", "num_return_sequences": "3", "seed": "5"}
    captions = client.post("/v1/captions", content=image_bytes, params=params).json()["captions"]
    expected = [" ".join(caption["text"].splitlines()) for caption in captions]
    text = client.post("/v1/captions", content=image_bytes, params=params, headers={"accept": "text/plain"}).text
    assert text == "".join(f"{caption}\n" for caption in expected)
    files = [("image", image_bytes), ("image", b"no image"), ("image", image_bytes)]
    answer = client.post("/v1/captions/batch", files=files, data=params, headers={"accept": "text/plain"})
    assert answer.text.splitlines()[:3] == answer.text.splitlines()[4:] == expected
    assert answer.text.splitlines()[3].startswith("error: ")


def test_boxes_are_returned_without_the_maps_values(client, image_bytes):
    full = client.post("/v1/captions", content=image_bytes).json()["captions"][0]["words"]
    params = {"map_size": "none"}
    bodies = [client.post("/v1/captions", content=image_bytes, params=params).json()]
    bodies += client.post("/v1/captions/batch", files={"image": image_bytes}, data=params).json()["data"]
    stream = client.post("/v1/captions", content=image_bytes, params=params, headers={"accept": "text/event-stream"}).text
    bodies.append(json.loads(stream.rstrip().rpartition("data: ")[2]))
    words = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith('data: {"index"')]
    explained, plain = (
        client.post("/v1/explanations", content=image_bytes, params={"caption": "a brown dog", **options}).json()
        for options in (params, {})
    )
    explained, plain = explained["captions"][0]["words"], plain["captions"][0]["words"]
    assert [word["box"] for word in explained] == [word["box"] for word in plain]
    assert {word["map"] for word in explained} == {None}
    for sent_words in (*[body["captions"][0]["words"] for body in bodies], words):
        assert len(sent_words) == len(full)
        for word, other in zip(sent_words, full, strict=True):
            assert word["map"] is None
            assert word["box"] == other["box"]
            assert word["focus"] == pytest.approx(other["focus"], abs=1e-4)
            assert word["image_mass"] == pytest.approx(other["image_mass"], abs=1e-4)
    assert "none" in MapOptions.model_fields["map_size"].description


@pytest.fixture(scope="module")
def bilingual(tokenizer):
    config = replace(tiny_config(tokenizer.size), languages=("en", "zh-Hant"), language_token_ids=(300, 301))
    captioner = Captioner.from_checkpoint(Checkpoint(CaptionNetwork(config), tokenizer, ""))
    with TestClient(create_app({"tiny": captioner}, Settings())) as client:
        yield client


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en-US", "en"), ("en_US", "en"), (" EN-gb-oxendict", "en"), ("en-x-private", "en"), ("en-a-b-x-y", "en"),
        ("zh-Hant-TW", "zh-Hant"), ("ZH_hant", "zh-Hant"), ("zh-Hans", ""), ("zh", ""), ("eng", ""), ("x-en", ""), ("-en", ""),
        ("\u00e9n", ""), ("e" * 5000, ""),
    ],
)  # fmt: skip
def test_a_language_is_looked_up_as_rfc_4647_says(bilingual, image_bytes, language, expected):
    for path in POST_PATHS:
        data = {"language": language} | ({"caption": "a dog"} if "expl" in path else {"max_words": "2"})
        response = bilingual.post(path, files={"image": image_bytes}, data=data)
        if not expected:
            assert problem(response, "invalid_option")["errors"][0]["parameter"] == "language"
            continue
        body = response.json()["data"][0] if "batch" in path else response.json()
        assert body["captions"][0]["language"] == expected
