"""What Ollama's API and Hugging Face's do that others do not: tags, lines, lists or objects."""

from __future__ import annotations

import json

import pytest

from tests.compatible import APIS, generate, ollama_chat, plain


def test_ollama_knows_models_with_and_without_a_tag(client, image_bytes):
    for name, status in (("tiny", 200), ("tiny:latest", 200), ("tiny:7b", 404), ("", 200), ("none:latest", 404)):
        assert client.post("/api/generate", **generate(image_bytes, name)).status_code == status
        assert client.post("/api/show", json={"model": name}).status_code == status
    names = [model["name"] for model in client.get("/api/tags").json()["models"]]
    assert names == ["tiny:latest", "other:latest"]
    assert [model["model"] for model in client.get("/api/ps").json()["models"]] == names


def test_ollama_streams_lines_by_default(client, native, image_bytes):
    for name, request in (("generate", generate), ("ollama chat", ollama_chat)):
        body = request(image_bytes, "tiny")["json"]
        del body["stream"]
        response = client.post(APIS[name].path, content=json.dumps(body))  # as curl -d sends it
        *words, last = [json.loads(line) for line in response.text.splitlines()]
        assert not any(line["done"] for line in words)
        assert last["done"]
        assert APIS[name].caption(last) == ""
        assert "".join(APIS[name].caption(line) for line in words) == native()[0]["text"]


@pytest.mark.parametrize("body", [{"model": "tiny"}, {"model": "tiny", "prompt": ""}, {"model": "tiny", "keep_alive": 0}])
def test_a_request_for_nothing_but_the_model_says_that_it_is_loaded(client, body):
    answer = client.post("/api/generate", json=body).json()
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    chat_answer = client.post("/api/chat", json={"model": "tiny", "messages": []}).json()
    assert chat_answer["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "Why is the sky blue?"}),
        ("/api/generate", {"images": ["AAAA", "AAAA"]}),
        ("/api/generate", {"images": ["AAAA"], "format": "json"}),
        ("/api/generate", {"images": ["AAAA"], "format": {"type": "object"}}),
        ("/api/generate", {"images": ["AAAA"], "options": {"temperature": -1}}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/api/chat", {"messages": [{"role": "user", "images": "AAAA"}]}),
    ],
)
def test_ollama_refuses_what_has_no_caption(client, path, body):
    response = client.post(path, json={"model": "tiny", **body})
    assert response.status_code == 400
    assert response.json().keys() == {"error"}


@pytest.mark.parametrize(
    ("agent", "query", "is_object"),
    [
        ("unknown/None; hf_hub/2.4.0; python/3.11", "", False),
        ("@huggingface/inference/4.13.14", "", False),
        ("@huggingface/inference/4.13.15", "", True),
        ("@huggingface/inference/4.13.30 Mozilla/5.0", "", True),
        ("@huggingface/inference/5.0.0", "", True),
        ("curl/8", "?format=object", True),
        ("@huggingface/inference/5.0.0", "?format=list", False),
    ],
)
def test_hugging_face_gets_a_list_or_an_object_by_client(client, native, image_bytes, agent, query, is_object):
    body = client.post(f"/models/tiny{query}", content=image_bytes, headers={"user-agent": agent}).json()
    assert body == ({"generated_text": native()[0]["text"]} if is_object else [{"generated_text": native()[0]["text"]}])


def test_hugging_face_parameters_are_transformers(client, native, image_bytes):
    def caption(**parameters):
        return client.post("/", json={"inputs": plain(image_bytes), "parameters": parameters}).json()

    assert caption(max_new_tokens=2)[0]["generated_text"] == native(max_new_tokens=2)[0]["text"]
    greedy = native(strategy="greedy")[0]["text"]
    assert caption(generation_parameters={"num_beams": 1})[0]["generated_text"] == greedy
    sampled = native(strategy="sample", temperature=1.4, seed=3)[0]["text"]
    assert caption(generate_kwargs={"do_sample": True, "temperature": 1.4, "seed": 3})[0]["generated_text"] == sampled
    several = caption(generation_kwargs={"num_beams": 4, "num_return_sequences": 4, "use_cache": True})
    assert [item["generated_text"] for item in several] == [c["text"] for c in native(num_beams=4, num_return_sequences=4)]
    assert client.post("/", json={"inputs": 5}).status_code == 400
    assert client.post("/models/tiny?format=xml", content=image_bytes).status_code == 400
    assert client.post("/", json={"inputs": "", "parameters": {"generation_parameters": 5}}).status_code == 400
