"""Several images in one request: each gets the captions that it gets alone, in order, and a failing one its own problem."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from service import Settings, create_app
from service.http.dialects.native.schemas import BatchBody, ProblemBody
from tests.conftest import problem
from tests.helpers import watched

PATH = "/v1/captions/batch"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uniform_image() -> bytes:
    """Return an image of one color."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images(photo):
    return [photo(64, 48, seed=seed) for seed in range(5)]


@pytest.fixture
def failing_client(tiny_captioner):
    """Return a client of a service whose encoder raises if an image of one color is among those of a call."""
    captioner, runtime = watched(tiny_captioner)

    def fail_if_uniform(pixels: torch.Tensor) -> None:
        if any(values.std() < 1e-3 for values in pixels[:, 0]):
            raise ZeroDivisionError("secret")

    runtime.before_encode = fail_if_uniform
    app = create_app({"tiny": captioner}, Settings())
    with TestClient(app, raise_server_exceptions=False) as test_client:
        yield test_client


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_each_image_gets_the_captions_that_it_gets_alone_in_order(client, images, form):
    options = {"num_beams": 2, "max_words": 6, "map_size": "3x2"}
    if form == "json":
        response = client.post(PATH, json={"images": [encoded(data) for data in images], **options})
    else:
        response = client.post(PATH, files=[("image", ("a.png", data)) for data in images], data=options)
    assert response.status_code == 200
    assert BatchBody.model_validate(response.json()).object == "list"
    entries = response.json()["data"]
    alone = [client.post("/v1/captions", content=data, params=options).json() for data in images]
    texts = [entry["captions"][0]["text"] for entry in entries]
    assert texts == [entry["captions"][0]["text"] for entry in alone]
    assert len(set(texts)) > 1, "equal captions would not show the order"
    for entry, expected in zip(entries, alone, strict=True):
        assert entry.keys() == expected.keys()
        log_probability = expected["captions"][0]["log_probability"]
        assert entry["captions"][0]["log_probability"] == pytest.approx(log_probability, abs=1e-4)


def test_an_invalid_image_gets_its_own_problem_and_the_others_their_captions(client, images):
    body = {"images": [encoded(images[0]), "%%%", encoded(b"no image"), "", encoded(images[1])]}
    entries = client.post(PATH, json=body).json()["data"]
    assert [entry.get("code", "caption") for entry in entries] == [
        "caption", "broken_base64", "unsupported_image_format", "empty_body", "caption",
    ]  # fmt: skip
    assert entries[1]["status"] == 400
    assert entries[1]["request_id"]


def test_an_internal_failure_of_one_image_is_its_own_problem_and_the_others_get_captions(failing_client, images, caplog):
    sent = [images[0], images[1], uniform_image(), images[2]]
    response = failing_client.post(PATH, json={"images": [encoded(data) for data in sent]})
    assert response.status_code == 200
    entries = response.json()["data"]
    assert [entry.get("code", "caption") for entry in entries] == ["caption", "caption", "internal", "caption"]
    failed = ProblemBody.model_validate(entries[2])
    assert failed.status == 500
    assert failed.request_id == response.headers["x-request-id"]
    assert "secret" not in response.text
    assert failed.request_id in caplog.text, "the log has the failure under the request id"
    assert "ZeroDivisionError: secret" in caplog.text
    for data, entry in zip(sent, entries, strict=True):
        if entry is not entries[2]:
            alone = failing_client.post("/v1/captions", content=data).json()
            assert entry["captions"][0]["text"] == alone["captions"][0]["text"]
    assert failing_client.get("/readyz").status_code == 200
    assert failing_client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


def test_an_error_of_the_request_itself_is_a_problem_response(client, images):
    texts = [encoded(images[0])]
    problem(client.post(PATH, json={"images": []}), "invalid_option")
    problem(client.post(PATH, json={"images": texts * 65}), "invalid_option")
    problem(client.post(PATH, json={"images": encoded(images[0])}), "invalid_option")
    problem(client.post(PATH, json={"images": texts, "num_beams": 99}), "invalid_option")
    problem(client.post(PATH, json={"images": texts, "prompt": "a " * 200}), "invalid_option")
    problem(client.post(PATH, json={"images": texts, "model": "none"}), "unknown_model")
    problem(client.post(PATH, content=images[0], headers={"content-type": "image/png"}), "unsupported_media_type")
    problem(client.post(PATH, files=[("file", ("a.png", images[0]))]), "invalid_option")
    problem(client.post(PATH, json=[1]), "broken_json")
    assert client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


def test_a_batch_larger_than_the_free_capacity_is_refused_completely(client, images):
    engine = client.app.state.engine
    with engine.admission.open() as ticket:
        ticket.take("images", engine.settings.max_queue_images - 2)
        refused = client.post(PATH, json={"images": [encoded(images[0])] * 3})
        problem(refused, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post(PATH, json={"images": [encoded(images[0])] * 2}).status_code == 200
