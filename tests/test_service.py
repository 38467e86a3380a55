"""The HTTP contract: every form of a request, every answer, every problem."""

from __future__ import annotations

import base64
import math

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from service.errors import ERRORS
from service.http.dialects.native.schemas import CaptionOptions, CaptionsBody, ModelsBody
from tests.helpers import failing
from tests.conftest import problem


def test_a_caption_has_words_with_offsets_probabilities_and_maps(client, picture):
    response = client.post("/v1/captions", content=picture, headers={"content-type": "image/jpeg"})
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


def test_every_form_of_a_request_gives_the_same_answer(client, picture):
    encoded = base64.b64encode(picture).decode()
    url_safe = base64.urlsafe_b64encode(picture).decode().rstrip("=")
    spaced = "\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
    requests = {
        "raw": {"content": picture, "headers": {"content-type": "image/jpeg"}},
        "raw of another type": {"content": picture, "headers": {"content-type": "image/png"}},
        "no type": {"content": picture},
        "octets": {"content": picture, "headers": {"content-type": "application/octet-stream"}},
        "curl --data-binary": {"content": picture, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        "form": {"files": {"image": ("photo.jpg", picture, "image/jpeg")}},
        "form without a type": {"files": {"image": ("photo", picture)}},
        "json": {"json": {"image": encoded}},
        "json, data URL": {"json": {"image": f"data:image/jpeg;base64,{encoded}"}},
        "json, URL-safe and unpadded": {"json": {"image": url_safe}},
        "json, in lines": {"json": {"image": spaced}},
        "json without a type": {"content": b' {"image": "' + encoded.encode() + b'"}'},
    }
    answers = {name: client.post("/v1/captions", **request) for name, request in requests.items()}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(requests, 200)
    assert len({str(answer.json()["captions"]) for answer in answers.values()}) == 1


def test_options_mean_the_same_in_query_form_and_json(client, picture):
    options = {"strategy": "sample", "seed": 7, "num_return_sequences": 2, "max_words": 5, "top_p": 0.9, "reliance": False, "maps": "none"}
    text = {name: str(value).lower() for name, value in options.items()}
    answers = [
        client.post("/v1/captions", content=picture, params=text),
        client.post("/v1/captions", files={"image": picture}, data=text),
        client.post("/v1/captions", json={"image": base64.b64encode(picture).decode(), **options}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    first, *others = [answer.json()["captions"] for answer in answers]
    assert all(other == first for other in others)
    assert len(first) == 2
    assert all(len(caption["words"]) <= 5 for caption in first)
    for word in first[0]["words"]:
        assert word["map"] is word["image_mass"] is word["focus"] is word["box"] is word["image_reliance"] is None


def test_text_is_the_first_caption_and_a_newline(client, picture):
    answer = client.post("/v1/captions", content=picture, headers={"accept": "text/plain"})
    known = client.post("/v1/captions", content=picture).json()
    assert answer.text == known["captions"][0]["text"] + "\n"
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/plain"),
        ("application/json;q=0.2, text/plain;q=0.9", "text/plain"),
        ("text/plain;q=0, */*;q=0.1", "application/json"),
        ("text/html, application/json;q=0.5", "text/html"),
    ],
)
def test_the_type_that_is_wanted_most_is_given(client, picture, accept, kind):
    answer = client.post("/v1/captions", content=picture, headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize("accept", ["image/jpeg", "audio/*", "application/xml;q=1", "*/*;q=0"])
def test_other_types_are_not_acceptable(client, picture, accept):
    problem(client.post("/v1/captions", content=picture, headers={"accept": accept}), "not_acceptable")


def test_an_explanation_keeps_the_text_as_it_was_sent(client, picture):
    text = "A brown DOG, well-known, runs."
    answer = client.post("/v1/explanations", files={"image": picture}, data={"caption": text})
    body = CaptionsBody.model_validate(answer.json())

    assert body.object == "explanation"
    assert body.captions[0].text == text
    words = body.captions[0].words
    assert [word.text for word in words] == ["A", "brown", "DOG", "well-known", "runs"]
    assert all(text[word.start : word.end] == word.text for word in words)
    assert all(sum(word.map.values) == pytest.approx(1, abs=1e-3) for word in words)
    assert body.captions[0].log_probability < sum(word.log_probability for word in words), "the end token counts"


def test_a_prompt_is_kept_as_given_and_its_words_get_maps(client, picture):
    answer = client.post("/v1/captions", content=picture, params={"prompt": "A Dog"}).json()["captions"][0]
    assert answer["text"].startswith("A Dog")
    assert answer["words"][0]["text"] == "A"
    assert all(answer["text"][word["start"] : word["end"]] == word["text"] for word in answer["words"])


def test_a_map_can_be_asked_for_in_another_size(client, picture):
    word = client.post("/v1/captions", content=picture, params={"map_size": "20x10"}).json()["captions"][0]["words"][0]
    assert (word["map"]["columns"], word["map"]["rows"]) == (20, 10)
    assert sum(word["map"]["values"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"num_beams": "9"}, "num_beams"),
        ({"num_beams": "three"}, "num_beams"),
        ({"num_return_sequences": "5"}, "count"),
        ({"strategy": "greedy", "num_return_sequences": "2"}, "count"),
        ({"strategy": "best"}, "strategy"),
        ({"maps": "gradient"}, "maps"),
        ({"map_size": "0x4"}, "map_size"),
        ({"map_size": "600x4"}, "map_size"),
        ({"map_size": "big"}, "map_size"),
        ({"language": "fr"}, "language"),
        ({"min_words": "9", "max_words": "3"}, "min_words"),
        ({"temperature": "nan"}, "temperature"),
        ({"length_penalty": "inf"}, "length_penalty"),
        ({"seed": str(2**63)}, "seed"),
        ({"prompt": "dog " * 96}, "prompt"),
        ({"map_size": "512x512", "num_return_sequences": "8", "strategy": "sample", "min_words": "20", "max_new_tokens": "80"}, "map_size"),
        ({"color": "red"}, "color"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(client, picture, params, name):
    body = problem(client.post("/v1/captions", content=picture, params=params), "invalid_option")
    assert [entry["parameter"] for entry in body["errors"]] == [name]


def test_an_unknown_option_lists_the_known_ones(client, picture):
    body = problem(client.post("/v1/captions", content=picture, params={"beam": "3"}), "invalid_option")
    assert all(name in body["errors"][0]["detail"] for name in CaptionOptions.model_fields)


def test_options_in_json_are_typed_and_pointed_at(client, picture):
    body = {"image": base64.b64encode(picture).decode(), "num_beams": "3", "reliance": 1}
    found = problem(client.post("/v1/captions", json=body), "invalid_option")
    assert {entry["pointer"] for entry in found["errors"]} == {"/beams", "/reliance"}


def test_options_given_twice_are_refused(client, picture):
    problem(client.post("/v1/captions?num_beams=2&num_beams=3", content=picture), "invalid_option")
    problem(client.post("/v1/captions?num_beams=2", files={"image": picture}, data={"num_beams": "3"}), "invalid_option")


def test_an_explanation_needs_a_caption_of_at_most_60_words(client, picture):
    for params in ({}, {"caption": ""}, {"caption": "dog " * 61}):
        body = problem(client.post("/v1/explanations", content=picture, params=params), "invalid_option")
        assert body["errors"][0]["parameter"] == "caption"
    assert client.post("/v1/explanations", content=picture, params={"caption": "dog " * 40}).status_code == 200


def test_a_model_is_chosen_by_name(client, picture):
    assert client.post("/v1/captions", content=picture).json()["model"] == "tiny"
    assert client.post("/v1/captions", content=picture, params={"model": "other"}).json()["model"] == "other"
    problem(client.post("/v1/captions", content=picture, params={"model": "gpt"}), "unknown_model")


@pytest.mark.parametrize("params", [{"max_words": "0"}, {"max_new_tokens": "256"}, {"max_new_tokens": "1"}, {"language": "EN"}])
def test_the_ends_of_the_options_ranges_are_answered(client, picture, params):
    answer = client.post("/v1/captions", content=picture, params=params)
    assert answer.status_code == 200, answer.text
    CaptionsBody.model_validate(answer.json())


def test_accept_may_come_in_two_lines(client, picture):
    headers = [("accept", "image/png"), ("accept", "text/plain")]
    assert client.post("/v1/captions", content=picture, headers=headers).headers["content-type"].startswith("text/plain")


def test_paths_and_methods_that_are_not_there(client):
    problem(client.get("/nothing"), "unknown_path")
    assert "POST" in problem(client.get("/v1/captions"), "method")["detail"]
    assert client.get("/v1/captions").headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models"])
def test_probes_answer_get_and_head(client, path):
    assert client.get(path).status_code == 200
    head = client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    wrong = client.post(path)
    problem(wrong, "method")
    assert wrong.headers["allow"] == "GET, HEAD"


def test_models_say_what_they_are(client, tiny_captioner):
    body = ModelsBody.model_validate(client.get("/v1/models").json(), extra="forbid")
    assert [entry.name for entry in body.data] == ["tiny", "other"]
    first = body.data[0]
    assert first.grid == {"rows": 3, "columns": 4}
    assert first.languages == ["en"]
    assert first.parameters == tiny_captioner.parameters
    assert first.card == "# A tiny card"
    assert first.defaults["num_beams"] == 3


def test_a_request_id_is_taken_or_made(client, picture):
    assert client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [client.get("/livez").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert len(client.get("/livez", headers={"x-request-id": "a b" * 100}).headers["x-request-id"]) == 24


def test_every_problem_has_a_page(client):
    for code in ERRORS:
        assert code in client.get(f"/problems/{code}").text
    problem(client.get("/problems/none"), "unknown_path")


def test_the_openapi_document_holds_every_error_option_and_schema(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/captions"]["post"]
    documented = {status: entry["description"] for status, entry in operation["responses"].items()}
    for code in ("empty_body", "host_not_allowed", "unknown_model", "too_many_pixels", "invalid_option", "internal"):
        assert code in documented[str(ERRORS[code].status)]
    assert {entry["name"] for entry in operation["parameters"]} == set(CaptionOptions.model_fields)
    assert {"multipart/form-data", "application/json", "image/jpeg"} <= operation["requestBody"]["content"].keys()

    def references(node: object):
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


def test_a_bug_is_told_as_one_and_gives_nothing_away(tiny_captioner, picture, caplog):
    with TestClient(
        create_app({"tiny": failing(tiny_captioner, RuntimeError("secret"))}, Settings()), raise_server_exceptions=False
    ) as client:
        answer = client.post("/v1/captions", content=picture)
    body = problem(answer, "internal")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get_list("x-request-id") == [body["request_id"]]
    assert "secret" not in str(body)
    assert body["request_id"] in caplog.text


def test_requests_at_once_each_get_their_own_answer(client, photo):
    from concurrent.futures import ThreadPoolExecutor

    pictures = [photo(60 + seed, 50, "PNG", seed=seed) for seed in range(8)]
    alone = [client.post("/v1/captions", content=data).json()["captions"] for data in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: client.post("/v1/captions", content=data).json()["captions"], pictures))
    for ours, theirs in zip(together, alone, strict=True):
        alike(ours, theirs)


def alike(one: object, other: object) -> None:
    """The definition of equal answers: texts equal, numbers within 1e-4 of each other (rows are computed together)."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        for ours, theirs in zip(one, other, strict=True):
            alike(ours, theirs)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(one, float) else other)
