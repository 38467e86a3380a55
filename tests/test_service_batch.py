"""Many pictures in one request: each gets what it gets alone, in order, and a bad one is its own problem."""

from __future__ import annotations

import base64

import pytest

from service.http.dialects.native.schemas import BatchBody
from tests.conftest import problem

PATH = "/v1/captions/batch"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def pictures(photo):
    return [photo(64, 48, seed=seed) for seed in range(5)]


def without_time(body):
    return {name: value for name, value in body.items() if name not in ("id", "created", "timing")}


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_each_picture_gets_what_it_gets_alone_in_order(client, pictures, form):
    options = {"num_beams": 2, "max_words": 6, "map_size": "3x2"}
    if form == "json":
        answer = client.post(PATH, json={"images": [encoded(data) for data in pictures], **options})
    else:
        answer = client.post(PATH, files=[("image", ("a.png", data)) for data in pictures], data=options)
    assert answer.status_code == 200
    body = BatchBody.model_validate(answer.json())
    assert body.object == "list"
    alone = [client.post("/v1/captions", content=data, params=options).json() for data in pictures]
    texts = [entry["captions"][0]["text"] for entry in answer.json()["data"]]
    assert texts == [entry["captions"][0]["text"] for entry in alone]
    assert len(set(texts)) > 1, "pictures that are all the same show no order"
    for one, other in zip(answer.json()["data"], alone, strict=True):
        assert without_time(one).keys() == without_time(other).keys()
        assert one["captions"][0]["log_probability"] == pytest.approx(other["captions"][0]["log_probability"], abs=1e-4)


def test_a_bad_picture_is_its_own_problem(client, pictures):
    images = [encoded(pictures[0]), "%%%", encoded(b"no picture"), "", encoded(pictures[1])]
    body = client.post(PATH, json={"images": images}).json()
    assert [entry.get("code", "caption") for entry in body["data"]] == [
        "caption", "broken_base64", "unsupported_image_format", "empty_body", "caption",
    ]  # fmt: skip
    assert body["data"][1]["status"] == 400
    assert body["data"][1]["request_id"]


def test_what_is_wrong_with_the_request_itself_is_a_problem(client, pictures):
    some = [encoded(pictures[0])]
    problem(client.post(PATH, json={"images": []}), "invalid_option")
    problem(client.post(PATH, json={"images": some * 65}), "invalid_option")
    problem(client.post(PATH, json={"images": encoded(pictures[0])}), "invalid_option")
    problem(client.post(PATH, json={"images": some, "num_beams": 99}), "invalid_option")
    problem(client.post(PATH, json={"images": some, "prompt": "a " * 200}), "invalid_option")
    problem(client.post(PATH, json={"images": some, "model": "none"}), "unknown_model")
    problem(client.post(PATH, content=pictures[0], headers={"content-type": "image/png"}), "unsupported_media_type")
    problem(client.post(PATH, files=[("photo", ("a.png", pictures[0]))]), "invalid_option")
    problem(client.post(PATH, json=[1]), "broken_json")
    assert client.app.state.engine.admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


def test_a_batch_that_the_queue_cannot_hold_is_refused_whole(client, pictures):
    engine = client.app.state.engine
    with engine.admission.enter(engine.settings.max_queue_images - 2):
        refused = client.post(PATH, json={"images": [encoded(pictures[0])] * 3})
        problem(refused, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post(PATH, json={"images": [encoded(pictures[0])] * 2}).status_code == 200
