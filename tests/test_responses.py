"""How responses are sent: numbers in JSON, compression, and the deadline that all parts of a response share."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi.testclient import TestClient

from service import Settings, create_app
from service.http.dialects.native.json_body import result_json
from service.http.json_encoding import encode_json, map_values
from tests.conftest import problem
from tests.helpers import wait_until, watched


def test_encoded_maps_are_json_with_six_significant_digits():
    rng = torch.Generator().manual_seed(1)
    values = torch.rand(5_000, generator=rng, dtype=torch.float64) * 10.0 ** torch.randint(-18, 0, (5_000,), generator=rng)
    values[:3] = torch.tensor([0.0, 1.0, 5e-324])
    text = '"values":"@" \u2603'
    words = [{"text": text, "map": {"rows": 1, "values": map_values(part)}} for part in values.split(1_000)]
    decoded = json.loads(encode_json({"words": words}))["words"]
    assert [word["text"] for word in decoded] == [text] * 5, "no text is replaced by a map"
    numbers = [value for word in decoded for value in word["map"]["values"]]
    assert numbers == [pytest.approx(float(f"{value:.6g}"), rel=1e-12, abs=1e-300) for value in values.tolist()]


def test_a_log_probability_that_is_not_finite_raises_instead_of_being_sent(tiny_captioner, views):
    (result,) = tiny_captioner.caption(views[:1])
    broken = dataclasses.replace(result.captions[0], log_probability=float("nan"))
    with pytest.raises(ValueError, match="nan"):
        result_json("caption", "tiny", "en", views[0], dataclasses.replace(result, captions=(broken,)), None)


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("", False),
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0", False),
        ("gzip;q=0.00", False),
        ("*", True),
        ("identity", False),
        ("br", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
    ],
)
def test_a_large_response_is_compressed_if_the_client_accepts_gzip(client, image_bytes, accepted, is_compressed):
    response = client.post("/v1/captions?map_size=40x40", content=image_bytes, headers={"accept-encoding": accepted})
    assert (response.headers.get("content-encoding") == "gzip") == is_compressed
    assert response.headers["vary"] == "accept-encoding"
    assert len(response.json()["captions"][0]["words"][0]["map"]["values"]) == 1600


def test_a_small_response_is_not_compressed(client, image_bytes):
    response = client.post("/v1/captions?maps=none&max_words=1", content=image_bytes, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers


def test_captioning_and_writing_share_one_deadline(tiny_captioner, image_bytes):
    deadline = 1.0
    captioner, runtime = watched(tiny_captioner)
    encoder, writers = threading.Event(), threading.Event()  # set: may continue
    runtime.before_encode = lambda _: encoder.wait(30)
    app = create_app({"tiny": captioner}, Settings(deadline_seconds=deadline))
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(1) as pool:
        engine = app.state.engine
        for _ in range(2):  # all writer threads are busy
            engine.writers.submit(writers.wait, 30)
        try:
            request = pool.submit(client.post, "/v1/captions?map_size=300x300", content=image_bytes)
            wait_until(lambda: runtime.encoded)
            started = time.monotonic()
            wait_until(lambda: time.monotonic() > started + 0.6 * deadline)
            encoder.set()
            wait_until(lambda: engine.scheduler.num_unanswered == 0)
            wait_until(lambda: time.monotonic() > started + 1.2 * deadline)  # each part took less than the deadline
        finally:
            encoder.set()
            writers.set()
        problem(request.result(30), "deadline_exceeded")
        wait_until(lambda: engine.admission.used["images"] == 0)
