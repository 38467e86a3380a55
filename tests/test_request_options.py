"""Options of HTTP requests: their names and ranges, their meaning in query, form and JSON, and the problems they cause."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from annotated_types import Ge, Le
from fastapi.testclient import TestClient

from model import GenerationOptions, fields_of
from service import Settings, create_app
from service.http.dialects.native.schemas import CaptionOptions, CaptionsBody
from tests.conftest import problem

FIELDS = {info.name: info for info in fields_of(GenerationOptions)}
BOUNDED = [name for name, info in FIELDS.items() if info.minimum is not None]


def test_options_mean_the_same_in_query_form_and_json(client, image_bytes):
    options = {
        "strategy": "sample",
        "seed": 7,
        "num_return_sequences": 2,
        "max_words": 5,
        "top_p": 0.9,
        "reliance": False,
        "maps": "none",
    }
    text = {name: str(value).lower() for name, value in options.items()}
    responses = [
        client.post("/v1/captions", content=image_bytes, params=text),
        client.post("/v1/captions", files={"image": image_bytes}, data=text),
        client.post("/v1/captions", json={"image": base64.b64encode(image_bytes).decode(), **options}),
    ]
    assert [response.status_code for response in responses] == [200] * 3
    first, *others = [response.json()["captions"] for response in responses]
    assert all(other == first for other in others)
    assert len(first) == 2
    assert all(len(caption["words"]) <= 5 for caption in first)
    for word in first[0]["words"]:
        assert word["map"] is word["image_mass"] is word["focus"] is word["box"] is word["image_reliance"] is None


def test_every_field_of_generation_options_is_an_http_option_with_its_range():
    assert {info.name for info in FIELDS.values()} == {entry.name for entry in dataclasses.fields(GenerationOptions)}
    for name, info in FIELDS.items():
        option = CaptionOptions.model_fields[name]
        bounds = {type(constraint): constraint for constraint in option.metadata}
        assert option.annotation == info.hint | None, name
        assert getattr(bounds.get(Ge), "ge", None) == info.minimum, name
        assert getattr(bounds.get(Le), "le", None) == info.maximum, name
        assert option.default is None, f"{name}: the checkpoint's default"


@pytest.mark.parametrize("name", BOUNDED)
def test_a_value_outside_of_an_options_range_is_an_invalid_option(client, image_bytes, name):
    info = FIELDS[name]
    step = 1 if info.hint is int else 0.001
    for value in (info.minimum - step, info.maximum + step):
        body = problem(client.post("/v1/captions", content=image_bytes, params={name: str(value)}), "invalid_option")
        assert [entry["parameter"] for entry in body["errors"]] == [name]


def test_min_p_of_one_samples_the_most_likely_tokens(client, image_bytes):
    params = {"strategy": "sample", "min_p": "1.0", "seed": "5"}
    response = client.post("/v1/captions", content=image_bytes, params=params)
    greedy = client.post("/v1/captions", content=image_bytes, params={"strategy": "greedy"}).json()
    assert response.status_code == 200, response.text
    assert response.json()["captions"][0]["text"] == greedy["captions"][0]["text"]


@pytest.mark.parametrize("value", [False, True, "never"])
def test_early_stopping_is_a_boolean_or_never_in_query_and_json(client, image_bytes, value):
    image = base64.b64encode(image_bytes).decode()
    in_query = client.post("/v1/captions", content=image_bytes, params={"early_stopping": str(value).lower()})
    in_json = client.post("/v1/captions", json={"image": image, "early_stopping": value})
    assert (in_query.status_code, in_json.status_code) == (200, 200)
    assert in_query.json()["captions"] == in_json.json()["captions"]
    wrong = problem(client.post("/v1/captions", json={"image": image, "early_stopping": "sometimes"}), "invalid_option")
    assert {entry["pointer"] for entry in wrong["errors"]} == {"/early_stopping"}


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"num_beams": "9"}, "num_beams"),
        ({"num_beams": "three"}, "num_beams"),
        ({"num_return_sequences": "5"}, "num_return_sequences"),
        ({"strategy": "greedy", "num_return_sequences": "2"}, "num_return_sequences"),
        ({"strategy": "best"}, "strategy"),
        ({"early_stopping": "sometimes"}, "early_stopping"),
        ({"maps": "unknown"}, "maps"),
        ({"map_size": "0x4"}, "map_size"),
        ({"map_size": "600x4"}, "map_size"),
        ({"map_size": "big"}, "map_size"),
        ({"language": "fr"}, "language"),
        ({"min_words": "9", "max_words": "3"}, "min_words"),
        ({"min_new_tokens": "9", "max_new_tokens": "3"}, "min_new_tokens"),
        ({"temperature": "nan"}, "temperature"),
        ({"length_penalty": "inf"}, "length_penalty"),
        ({"seed": str(2**63)}, "seed"),
        ({"prompt": "dog " * 96}, "prompt"),
        (
            {
                "map_size": "512x512",
                "num_return_sequences": "8",
                "strategy": "sample",
                "min_words": "20",
                "max_new_tokens": "80",
            },
            "map_size",
        ),
        ({"color": "red"}, "color"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(client, image_bytes, params, name):
    body = problem(client.post("/v1/captions", content=image_bytes, params=params), "invalid_option")
    assert [entry["parameter"] for entry in body["errors"]] == [name]


def test_an_unknown_option_lists_the_known_ones(client, image_bytes):
    body = problem(client.post("/v1/captions", content=image_bytes, params={"beam": "3"}), "invalid_option")
    assert all(name in body["errors"][0]["detail"] for name in CaptionOptions.model_fields)


def test_options_in_json_are_typed_and_named_by_pointers(client, image_bytes):
    body = {"image": base64.b64encode(image_bytes).decode(), "num_beams": "3", "reliance": 1}
    errors = problem(client.post("/v1/captions", json=body), "invalid_option")["errors"]
    assert {entry["pointer"] for entry in errors} == {"/num_beams", "/reliance"}


def test_an_option_that_is_sent_twice_is_refused(client, image_bytes):
    problem(client.post("/v1/captions?num_beams=2&num_beams=3", content=image_bytes), "invalid_option")
    problem(client.post("/v1/captions?num_beams=2", files={"image": image_bytes}, data={"num_beams": "3"}), "invalid_option")


def test_an_option_in_the_query_of_a_json_request_is_refused(client, image_bytes):
    response = client.post("/v1/captions?num_beams=2", json={"image": base64.b64encode(image_bytes).decode()})
    assert problem(response, "invalid_option")["errors"][0]["parameter"] == "num_beams"


def test_an_explanation_needs_a_caption_of_at_most_60_words(client, image_bytes):
    for params in ({}, {"caption": ""}, {"caption": "dog " * 61}):
        body = problem(client.post("/v1/explanations", content=image_bytes, params=params), "invalid_option")
        assert body["errors"][0]["parameter"] == "caption"
    assert client.post("/v1/explanations", content=image_bytes, params={"caption": "dog " * 40}).status_code == 200


@pytest.mark.parametrize("params", [{"max_words": "0"}, {"max_new_tokens": "256"}, {"max_new_tokens": "1"}, {"language": "EN"}])
def test_values_at_the_ends_of_the_ranges_are_accepted(client, image_bytes, params):
    response = client.post("/v1/captions", content=image_bytes, params=params)
    assert response.status_code == 200, response.text
    CaptionsBody.model_validate(response.json())


@pytest.mark.parametrize("end", ["minimum", "maximum"])
@pytest.mark.parametrize("name", BOUNDED)
def test_both_ends_of_every_range_are_accepted(client, image_bytes, name, end):
    value = getattr(FIELDS[name], end)
    related = {
        "num_return_sequences": {"num_beams": "8"},
        "num_beams": {"num_return_sequences": "1"},
        "min_words": {"max_words": "400"},
        "max_words": {"min_words": "0"},
        "min_new_tokens": {"max_new_tokens": "1024"},
        "max_new_tokens": {"min_new_tokens": "0"},
    }
    params = related.get(name, {}) | {name: str(value), "maps": "none", "reliance": "false"}
    response = client.post("/v1/captions", content=image_bytes, params=params)
    if name == "min_confidence" and end == "maximum":  # in range, but the tiny checkpoint is not calibrated
        assert "no calibrated confidence" in problem(response, "invalid_option")["detail"]
        return
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/explanations"])
def test_a_map_method_that_blocks_other_clients_needs_a_setting(client, tiny_captioner, image_bytes, path):
    options = {"maps": "occlusion", "caption": "a dog"} if path == "/v1/explanations" else {"maps": "occlusion", "max_words": 3}
    body = problem(client.post(path, content=image_bytes, params=options), "invalid_option")
    assert "slow_maps" in body["detail"]
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(slow_maps=True))) as allowed:
        assert allowed.post(path, content=image_bytes, params=options).status_code == 200
