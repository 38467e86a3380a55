"""The packages replicate and moondream."""

from __future__ import annotations

import io
import urllib.error

import pytest
from PIL import Image


def run(service, model="sightline/default", token="any", image=None):
    import replicate

    client = replicate.Client(api_token=token, base_url=service.url, timeout=60)
    return client.run(model, input={"image": image or service.data_url})


def test_replicate_gets_the_caption(service, text):
    assert run(service) == text


def test_replicate_raises_the_errors_of_the_service(service, secured):
    import replicate.exceptions

    def status(*arguments, **options) -> int:
        with pytest.raises(replicate.exceptions.ReplicateError) as raised:
            run(*arguments, **options)
        assert raised.value.detail
        return raised.value.status

    assert status(service, image="data:image/png;base64,bm8=") == 415
    assert status(service, "sightline/none") == 404
    assert status(secured) == 401
    assert run(secured, token="a-key")


def moon(service, key="any"):
    import moondream

    return moondream.vl(endpoint=f"{service.url}/v1", api_key=key)


def test_moondream_gets_and_streams_the_caption(service):
    image = Image.open(io.BytesIO(service.scene))
    caption = moon(service).caption(image)["caption"]  # the client sends a JPEG
    assert "blue star" in caption
    parts = list(moon(service).caption(image, stream=True)["caption"])
    assert "".join(parts) == caption
    assert len(parts) > 5
    short, long = (moon(service).caption(image, length=length)["caption"] for length in ("short", "long"))
    assert len(short) <= len(caption) <= len(long)
    assert len(short) < len(long)


def test_moondream_raises_the_errors_of_the_service(service, secured):
    from moondream.types import Base64EncodedImage

    image = Image.open(io.BytesIO(service.scene))

    def status(call) -> int:
        with pytest.raises(urllib.error.HTTPError) as raised:
            call()
        return raised.value.code

    broken = Base64EncodedImage(image_url="data:image/png;base64,bm8=")
    assert status(lambda: moon(service).caption(broken)) == 400
    assert status(lambda: moon(secured).caption(image)) == 401
    assert moon(secured, "a-key").caption(image)["caption"]
    with service.full():
        assert status(lambda: moon(service).caption(image)) == 503
