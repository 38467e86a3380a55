"""How answers leave: numbers in JSON, compression, and places that are held until the client has them."""

from __future__ import annotations

import json
import time

import pytest
import torch

from service.http.dialects.native.json_body import _rounded, encode
from service.http.responses import _takes_gzip


def test_encoded_maps_are_json_with_six_significant_digits():
    drawn = torch.Generator().manual_seed(1)
    values = torch.rand(5_000, generator=drawn, dtype=torch.float64) * 10.0 ** torch.randint(-18, 0, (5_000,), generator=drawn)
    values[:3] = torch.tensor([0.0, 1.0, 5e-324])
    body = {
        "words": [{"text": '"values":"@" \u2603', "map": {"rows": 1, "values": _rounded(part)}} for part in values.split(1_000)]
    }
    told = json.loads(encode(body))
    assert [word["text"] for word in told["words"]] == ['"values":"@" \u2603'] * 5, "no text is taken for a map"
    found = [value for word in told["words"] for value in word["map"]["values"]]
    assert found == [pytest.approx(float(f"{value:.6g}"), rel=1e-12, abs=1e-300) for value in values.tolist()]


def test_a_network_that_gives_no_number_is_a_bug_and_not_an_answer(tiny_captioner, views):
    import dataclasses

    from service.http.dialects.native.json_body import answer_json

    (found,) = tiny_captioner.caption(views[:1])
    broken = dataclasses.replace(found.captions[0], log_probability=float("nan"))
    with pytest.raises(ValueError, match="nan"):
        answer_json("caption", "tiny", "en", views[0], dataclasses.replace(found, captions=(broken,)), None, {})


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("*", True),
        ("identity", False),
        ("br", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
    ],
)
def test_compression_is_used_where_it_is_accepted(client, picture, accepted, taken):
    assert _takes_gzip(accepted) == taken
    answer = client.post("/v1/captions?map_size=40x40", content=picture, headers={"accept-encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") == taken
    assert answer.headers["vary"] == "accept-encoding"
    assert len(answer.json()["captions"][0]["words"][0]["map"]["values"]) == 1600


def test_small_answers_are_not_compressed(client, picture):
    answer = client.post("/v1/captions?maps=none&max_words=1", content=picture, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


def test_decoding_captioning_and_writing_share_one_deadline(tiny_captioner, picture, monkeypatch):
    from service import routes
    from tests.conftest import problem
    from tests.test_admission import serving
    from tests.test_scheduler import Watched

    original = routes.caption_json
    monkeypatch.setattr(routes, "caption_json", lambda *given: (time.sleep(0.5), original(*given))[1])
    watched = Watched(tiny_captioner)
    watched.before = lambda _: time.sleep(0.4)
    with serving(watched, deadline_seconds=0.7) as client:
        problem(client.post("/v1/captions?map_size=300x300", content=picture), "deadline_exceeded")
        assert client.app.state.engine.admission.used["pictures"] == 0
