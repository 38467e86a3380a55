"""Forms of responses: explanations, texts, boxes without maps; and the language of a caption."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from model import Captioner, CaptionNetwork, Checkpoint
from service import Settings, create_app
from service.http.dialects.native.schemas import MapOptions
from tests.conftest import problem
from tests.networks import tiny_config
from tests.odd_requests import POST_PATHS


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
