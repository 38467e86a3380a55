"""Request bodies: hostile and unusual images, and bodies that cannot be read. Each gets its own problem, none a 500."""

from __future__ import annotations

import base64
import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service import Settings, create_app
from service.http.dialects.native.schemas import CaptionsBody
from tests.conftest import problem
from tests.test_image import lying_png, text_png


def hostile_images() -> dict[str, tuple[bytes, str]]:
    """Return bytes and the code of their problem, by name."""
    file = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(file, "GIF", save_all=True, append_images=[Image.new("RGB", (30, 30), "blue")])
    jpeg = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(jpeg, "JPEG")
    return {
        "empty": (b"", "empty_body"),
        "truncated": (jpeg.getvalue()[:2000], "broken_image"),
        "text": (b"This is a text file, not an image.\n" * 30, "unsupported_image_format"),
        "lying header": (lying_png(9400, 9400), "too_many_pixels"),
        "animated GIF": (file.getvalue(), "unsupported_image_format"),
        "huge text chunk": (text_png(2_000_000), "broken_image"),
        "too many bytes": (b"\xff\xd8\xff" + b"\0" * 3_100_000, "body_too_large"),
    }


@pytest.mark.parametrize("name", hostile_images())
@pytest.mark.parametrize("form", ["raw", "form", "json"])
def test_hostile_bytes_get_the_same_problem_in_every_form(client, name, form):
    data, code = hostile_images()[name]
    if form == "raw":
        response = client.post("/v1/captions", content=data)
    elif form == "form":
        response = client.post("/v1/captions", files={"image": ("x", data)})
    else:
        response = client.post("/v1/captions", json={"image": base64.b64encode(data).decode()})
    problem(response, code)


def unusual_images() -> dict[str, bytes]:
    """Return valid images that few clients send, by name."""

    def encoded(image: Image.Image, format: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    return {
        "CMYK JPEG": encoded(Image.new("CMYK", (50, 40), (0, 90, 90, 10)), "JPEG"),
        "16-bit PNG": encoded(Image.new("I;16", (50, 40), 40_000), "PNG"),
        "transparent palette PNG": encoded(palette, "PNG", transparency=0),
        "1 x 1": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "1 x 4000": encoded(Image.new("RGB", (1, 4000)), "PNG"),
        "animated WebP": encoded(palette.convert("RGB"), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 40))]),
    }


@pytest.mark.parametrize("name", unusual_images())
def test_unusual_but_valid_images_get_captions(client, name):
    response = client.post("/v1/captions", content=unusual_images()[name])
    assert response.status_code == 200
    CaptionsBody.model_validate(response.json())


def test_a_gif_is_captioned_if_the_settings_accept_it(tiny_captioner):
    data, _ = hostile_images()["animated GIF"]
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(formats="jpeg, gif"))) as client:
        assert client.post("/v1/captions", content=data).json()["image"]["format"] == "GIF"


@pytest.mark.parametrize(
    ("request_arguments", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "broken_json"),
        ({"content": b"[1]", "headers": {"content-type": "application/json"}}, "broken_json"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, "broken_json"),
        ({"content": b'{"image": "\xff"}', "headers": {"content-type": "application/json"}}, "broken_json"),
        ({"json": {"image": "***"}}, "broken_base64"),
        ({"json": {"image": "data:image/png,abc"}}, "broken_base64"),
        ({"json": {"image": "a"}}, "broken_base64"),
        ({"json": {"image": ""}}, "empty_body"),
        ({"json": {"image": 5}}, "invalid_option"),
        ({"json": {}}, "invalid_option"),
        ({"json": {"url": "https://example.org/a.jpg"}}, "host_not_allowed"),
        ({"content": b"xx", "headers": {"content-type": "multipart/form-data"}}, "broken_multipart"),
        ({"content": b"xx", "headers": {"content-type": "multipart/form-data; boundary=a"}}, "broken_multipart"),
        ({"files": {"file": b"xx"}}, "invalid_option"),
        ({"data": {"num_beams": "3"}, "files": {"image": b""}}, "empty_body"),
        ({"content": b"%PDF", "headers": {"content-type": "application/pdf"}}, "unsupported_media_type"),
        ({"content": b"hi", "headers": {"content-type": "text/plain"}}, "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_read_gets_its_problem(client, request_arguments, code):
    problem(client.post("/v1/captions", **request_arguments), code)


def test_a_chunked_body_is_rejected_once_it_exceeds_the_limit(client):
    def chunks():
        for _ in range(100):
            yield b"\xff\xd8\xff" + b"\0" * 100_000

    problem(client.post("/v1/captions", content=chunks()), "body_too_large")
