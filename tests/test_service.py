"""The HTTP contract: forms of requests, types of responses, paths, models, request ids, the OpenAPI document."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from service.errors import ERRORS
from service.http.dialects.native.schemas import CaptionOptions, CaptionsBody, ModelsBody
from tests.conftest import problem
from tests.helpers import failing


def test_a_caption_has_words_with_offsets_probabilities_and_maps(client, image_bytes):
    response = client.post("/v1/captions", content=image_bytes, headers={"content-type": "image/jpeg"})
    body = CaptionsBody.model_validate(response.json(), extra="forbid")

    assert response.status_code == 200
    assert body.id.startswith("cap_")
    assert len(body.id) == 30
    assert (body.image.width, body.image.height, body.image.format) == (120, 90, "JPEG")
    assert body.grid.covers == [0, 0, 120, 90]
    (caption,) = body.captions
    assert caption.words
    for word in caption.words:
        assert caption.text[word.start : word.end] == word.text
        assert word.probability == pytest.approx(math.exp(word.log_probability))
        assert len(word.map.values) == word.map.rows * word.map.columns == 12
        assert min(word.map.values) >= 0
        assert sum(word.map.values) == pytest.approx(1, abs=1e-3)
        assert 0 <= word.image_mass <= 1
        assert 0 <= word.focus <= 1
        x0, y0, x1, y1 = word.box
        assert 0 <= x0 < x1 <= 120
        assert 0 <= y0 < y1 <= 90
    assert set(body.timing.model_dump()) == {"decode_image_ms", "queue_ms", "encode_ms", "decode_ms", "maps_ms"}
    assert "encode;dur=" in response.headers["server-timing"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_every_form_of_a_request_gets_the_same_captions(client, image_bytes):
    encoded = base64.b64encode(image_bytes).decode()
    url_safe = base64.urlsafe_b64encode(image_bytes).decode().rstrip("=")
    spaced = "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    requests = {
        "raw": {"content": image_bytes, "headers": {"content-type": "image/jpeg"}},
        "raw with another image type": {"content": image_bytes, "headers": {"content-type": "image/png"}},
        "no type": {"content": image_bytes},
        "octets": {"content": image_bytes, "headers": {"content-type": "application/octet-stream"}},
        "curl --data-binary": {"content": image_bytes, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        "form": {"files": {"image": ("a.jpg", image_bytes, "image/jpeg")}},
        "form without a type": {"files": {"image": ("a", image_bytes)}},
        "json": {"json": {"image": encoded}},
        "json, data URL": {"json": {"image": f"data:image/jpeg;base64,{encoded}"}},
        "json, URL-safe and unpadded": {"json": {"image": url_safe}},
        "json, in lines": {"json": {"image": spaced}},
        "json without a type": {"content": b' {"image": "' + encoded.encode() + b'"}'},
    }
    responses = {name: client.post("/v1/captions", **request) for name, request in requests.items()}

    assert {name: response.status_code for name, response in responses.items()} == dict.fromkeys(requests, 200)
    assert len({str(response.json()["captions"]) for response in responses.values()}) == 1


def test_a_text_response_is_the_first_caption_and_a_newline(client, image_bytes):
    response = client.post("/v1/captions", content=image_bytes, headers={"accept": "text/plain"})
    expected = client.post("/v1/captions", content=image_bytes).json()["captions"][0]["text"]
    assert response.text == expected + "\n"
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/plain"),
        ("application/json;q=0.2, text/plain;q=0.9", "text/plain"),
        ("text/plain;q=0, */*;q=0.1", "application/json"),
        ("text/html, application/json;q=0.5", "text/html"),
    ],
)
def test_the_response_has_the_accepted_type_of_the_highest_weight(client, image_bytes, accept, media_type):
    response = client.post("/v1/captions", content=image_bytes, headers={"accept": accept})
    assert response.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize("accept", ["image/jpeg", "audio/*", "application/xml;q=1", "*/*;q=0"])
def test_other_types_are_not_acceptable(client, image_bytes, accept):
    problem(client.post("/v1/captions", content=image_bytes, headers={"accept": accept}), "not_acceptable")


def test_accept_may_be_sent_in_two_lines(client, image_bytes):
    headers = [("accept", "image/png"), ("accept", "text/plain")]
    assert client.post("/v1/captions", content=image_bytes, headers=headers).headers["content-type"].startswith("text/plain")


def test_an_explanation_keeps_the_text_as_it_was_sent(client, image_bytes):
    text = "A brown DOG, well-known, runs."
    response = client.post("/v1/explanations", files={"image": image_bytes}, data={"caption": text})
    body = CaptionsBody.model_validate(response.json())

    assert body.object == "explanation"
    assert body.captions[0].text == text
    words = body.captions[0].words
    assert [word.text for word in words] == ["A", "brown", "DOG", "well-known", "runs"]
    assert all(text[word.start : word.end] == word.text for word in words)
    assert all(sum(word.map.values) == pytest.approx(1, abs=1e-3) for word in words)
    assert body.captions[0].log_probability < sum(word.log_probability for word in words), "the end token counts"


def test_a_prompt_is_kept_as_written_and_its_words_get_maps(client, image_bytes):
    caption = client.post("/v1/captions", content=image_bytes, params={"prompt": "A Dog"}).json()["captions"][0]
    assert caption["text"].startswith("A Dog")
    assert caption["words"][0]["text"] == "A"
    assert caption["words"][0]["map"] is not None
    assert all(caption["text"][word["start"] : word["end"]] == word["text"] for word in caption["words"])


def test_a_map_can_be_requested_in_another_size(client, image_bytes):
    word = client.post("/v1/captions", content=image_bytes, params={"map_size": "20x10"}).json()["captions"][0]["words"][0]
    assert (word["map"]["columns"], word["map"]["rows"]) == (20, 10)
    assert sum(word["map"]["values"]) == pytest.approx(1, abs=1e-3)


def test_a_model_is_chosen_by_name(client, image_bytes):
    assert client.post("/v1/captions", content=image_bytes).json()["model"] == "tiny"
    assert client.post("/v1/captions", content=image_bytes, params={"model": "other"}).json()["model"] == "other"
    problem(client.post("/v1/captions", content=image_bytes, params={"model": "gpt"}), "unknown_model")


def test_unknown_paths_and_methods_are_problems(client):
    problem(client.get("/nothing"), "unknown_path")
    assert "POST" in problem(client.get("/v1/captions"), "method")["detail"]
    assert client.get("/v1/captions").headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models"])
def test_probes_and_models_support_get_and_head(client, path):
    assert client.get(path).status_code == 200
    head = client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    wrong = client.post(path)
    problem(wrong, "method")
    assert wrong.headers["allow"] == "GET, HEAD"


def test_models_lists_every_checkpoint_with_its_properties(client, tiny_captioner):
    body = ModelsBody.model_validate(client.get("/v1/models").json(), extra="forbid")
    assert [entry.name for entry in body.data] == ["tiny", "other"]
    first = body.data[0]
    assert first.grid == {"rows": 3, "columns": 4}
    assert first.languages == ["en"]
    assert first.parameters == tiny_captioner.parameters
    assert first.card == "# A tiny card"
    assert first.defaults["num_beams"] == 3


def test_a_request_id_is_accepted_or_generated(client):
    assert client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    generated = [client.get("/livez").headers["x-request-id"] for _ in range(2)]
    assert generated[0] != generated[1]
    assert len(client.get("/livez", headers={"x-request-id": "a b" * 100}).headers["x-request-id"]) == 24


def test_every_problem_has_a_page(client):
    for code in ERRORS:
        assert code in client.get(f"/problems/{code}").text
    problem(client.get("/problems/none"), "unknown_path")


def test_the_openapi_document_has_every_error_option_and_schema(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/captions"]["post"]
    documented = {status: entry["description"] for status, entry in operation["responses"].items()}
    for code in ("empty_body", "host_not_allowed", "unknown_model", "too_many_pixels", "invalid_option", "internal"):
        assert code in documented[str(ERRORS[code].status)]
    assert {entry["name"] for entry in operation["parameters"]} == set(CaptionOptions.model_fields)
    assert {"multipart/form-data", "application/json", "image/jpeg"} <= operation["requestBody"]["content"].keys()
    operations = [entry for path in document["paths"].values() for entry in path.values()]
    for status, reason in (("429", "too many connections"), ("431", "headers are too large")):  # a connection may be refused
        assert all(reason in entry["responses"][status]["description"] for entry in operations)
    assert "rate_limited" in documented["429"]

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in set(references(document)):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    assert "/v1/explanations" in document["paths"]


def test_a_bug_is_an_internal_problem_that_reveals_nothing(tiny_captioner, image_bytes, caplog):
    app = create_app({"tiny": failing(tiny_captioner, RuntimeError("secret"))}, Settings())
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.post("/v1/captions", content=image_bytes)
    body = problem(response, "internal")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers.get_list("x-request-id") == [body["request_id"]]
    assert "secret" not in response.text
    assert body["request_id"] in caplog.text


def test_concurrent_requests_get_the_captions_that_they_get_alone(client, photo):
    images = [photo(60 + seed, 50, "PNG", seed=seed) for seed in range(8)]
    alone = [client.post("/v1/captions", content=data).json()["captions"] for data in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: client.post("/v1/captions", content=data).json()["captions"], images))
    for captions, expected in zip(together, alone, strict=True):
        assert_equal_responses(captions, expected)


def assert_equal_responses(value: object, expected: object) -> None:
    """Check that texts are equal and numbers within 1e-4: rows are computed together."""
    if isinstance(value, dict):
        assert value.keys() == expected.keys()
        value, expected = list(value.values()), list(expected.values())
    if isinstance(value, list):
        for inner, expected_inner in zip(value, expected, strict=True):
            assert_equal_responses(inner, expected_inner)
    else:
        assert value == (pytest.approx(expected, abs=1e-4) if isinstance(value, float) else expected)
