"""Requests that cannot be read: refused with what to do, in our own words, without a path of the machine."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from tests.conftest import problem
from tests.odd_requests import DISPOSITION, FORM, JSON, POST_PATHS, URL_ENCODED, form, part

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
