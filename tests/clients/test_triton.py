"""The package tritonclient over HTTP."""

from __future__ import annotations

import numpy as np
import pytest


def client_of(service):
    from tritonclient.http import InferenceServerClient

    return InferenceServerClient(service.address)


def image_input(data: bytes):
    from tritonclient.http import InferInput

    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], dtype=object))
    return tensor


def test_the_server_and_its_model_are_described(service):
    client = client_of(service)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("default")
    assert client.get_server_metadata()["name"] == "sightline"
    metadata = client.get_model_metadata("default", "1")
    assert [tensor["datatype"] for tensor in metadata["inputs"]] == ["BYTES"]
    assert {tensor["name"]: tensor["shape"] for tensor in metadata["outputs"]}["attention"] == [-1, 14, 14]


@pytest.mark.parametrize("is_binary", [True, False])
def test_outputs_are_caption_words_and_maps(service, text, is_binary):
    from tritonclient.http import InferRequestedOutput

    names = ["caption", "words", "attention", "probability", "image_reliance", "confidence"]
    outputs = [InferRequestedOutput(name, binary_data=is_binary) for name in names]
    result = client_of(service).infer("default", [image_input(service.scene)], outputs=outputs, request_id="7")
    [caption] = result.as_numpy("caption")
    assert (caption.decode() if isinstance(caption, bytes) else caption) == text
    words, maps = result.as_numpy("words"), result.as_numpy("attention")
    assert maps.shape == (len(words), 14, 14)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-3)
    assert result.as_numpy("probability").shape == result.as_numpy("image_reliance").shape == words.shape
    assert result.as_numpy("confidence").shape == (1,)
    assert result.get_response()["id"] == "7"


def test_all_outputs_are_binary_unless_named_and_parameters_are_options(service, text):
    client = client_of(service)
    result = client.infer("default", [image_input(service.scene)], parameters={"strategy": "greedy"})
    assert result.as_numpy("attention").shape[0] == len(result.as_numpy("words"))
    assert "star" in result.as_numpy("caption")[0].decode()


def test_every_error_is_of_its_own_kind(service, secured):
    from tritonclient.utils import InferenceServerException

    def status(call) -> str:
        with pytest.raises(InferenceServerException) as raised:
            call()
        assert raised.value.message()
        return raised.value.status()

    client = client_of(service)
    assert status(lambda: client.infer("default", [image_input(b"no image")])) == "400"
    assert status(lambda: client.infer("none", [image_input(service.scene)])) == "404"
    assert status(lambda: client.infer("default", [image_input(service.scene)] * 2)) == "400"
    assert status(lambda: client_of(secured).infer("default", [image_input(service.scene)])) == "401"
    headers = {"Authorization": "Bearer a-key"}
    assert client_of(secured).infer("default", [image_input(service.scene)], headers=headers).as_numpy("caption")
    with service.full():
        assert status(lambda: client.infer("default", [image_input(service.scene)])) == "503"
