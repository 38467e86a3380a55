"""What single compatible APIs do that others do not: options, formats, versions, refusals."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from service.http.dialects.azure import _neutral_text
from service.http.dialects.openai.content import last_image
from tests.compatible import APIS, analyze, chat, data_url, generate, infer, ollama_chat, plain, responses, send


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with TestClient(create_app({"tiny": tiny_captioner, "other": tiny_captioner}, Settings())) as client:
        yield client


@pytest.fixture(scope="module")
def native(api_client, image_bytes):
    def captions(**options):
        return api_client.post("/v1/captions", content=image_bytes, params=options).json()["captions"]

    return captions


def text_of(api_client, name, arguments) -> str:
    response = api_client.post(APIS[name].path, **arguments)
    assert response.status_code == 200, response.text
    return APIS[name].caption(response.json())


# OpenAI


def test_temperature_samples_with_the_seed_and_zero_does_not(api_client, native, image_bytes):
    arguments = chat(image_bytes, "tiny")
    for options, own in (
        ({"temperature": 1.3, "seed": 5}, {"strategy": "sample", "temperature": 1.3, "seed": 5}),
        ({"temperature": 0.9, "top_p": 0.8, "seed": 1}, {"strategy": "sample", "temperature": 0.9, "top_p": 0.8, "seed": 1}),
        ({"top_p": 0.5, "seed": 2}, {"strategy": "sample", "top_p": 0.5, "seed": 2}),
        ({"temperature": 0, "top_p": 0.5}, {}),
        ({"temperature": 0.01}, {}),
        ({"top_p": 1}, {}),
        ({"temperature": None, "top_p": None, "seed": 9, "n": None}, {}),
    ):
        changed = {"json": arguments["json"] | options}
        assert text_of(api_client, "chat", changed) == native(**own)[0]["text"], options


def test_n_is_the_number_of_captions_up_to_eight(api_client, native, image_bytes):
    body = chat(image_bytes, "tiny")["json"]
    choices = api_client.post("/v1/chat/completions", json=body | {"n": 5}).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == [
        caption["text"] for caption in native(num_beams=5, num_return_sequences=5)
    ]
    response = api_client.post("/v1/chat/completions", json=body | {"n": 9})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"


def test_a_token_limit_only_lowers_the_checkpoints(api_client, native, image_bytes):
    body = chat(image_bytes, "tiny")["json"]
    assert text_of(api_client, "chat", {"json": body | {"max_tokens": 100_000}}) == native()[0]["text"]
    for name in ("max_tokens", "max_completion_tokens"):
        choice = api_client.post("/v1/chat/completions", json=body | {name: 2}).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == native(max_new_tokens=2)[0]["text"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("temperature", 3),
        ("top_logprobs", 21),
        ("messages", "hello"),
        ("messages", []),
        ("messages", [{"role": "user", "content": "Only text"}]),
        ("stop", 5),
        ("sightline", 7),
    ],
)
def test_what_a_captioner_cannot_do_is_refused_by_name(api_client, image_bytes, member, value):
    response = api_client.post("/v1/chat/completions", json=chat(image_bytes, "tiny")["json"] | {member: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == member
    assert error["type"] == "invalid_request_error"
    assert member in error["message"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("text", {"format": {"type": "json_schema"}}),
        ("input", "only text"),
        ("input", [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]),
    ],
)
def test_the_responses_api_refuses_what_needs_storage_or_json(api_client, image_bytes, member, value):
    response = api_client.post("/v1/responses", json=responses(image_bytes, "tiny")["json"] | {member: value})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_unknown_members_and_tools_are_ignored(api_client, native, image_bytes):
    extra = {"tools": [{"type": "function"}], "user": "u", "frequency_penalty": 1, "logit_bias": {"1": 2}, "tool_choice": "auto",
             "response_format": {"type": "text"}}  # fmt: skip
    assert text_of(api_client, "chat", {"json": chat(image_bytes, "tiny")["json"] | extra}) == native()[0]["text"]


def test_the_image_is_that_of_the_last_message_with_one():
    def message(*sources):
        return {"role": "user", "content": [{"type": "image_url", "image_url": source} for source in sources]}

    first, second = data_url(b"first"), data_url(b"second")
    assert last_image([message({"url": first}), {"role": "assistant", "content": "x"}, message(second)], "messages") == b"second"
    assert last_image([message(second), {"role": "user", "content": "and now?"}], "messages") == b"second"
    assert last_image([message({"url": "https://example.org/a.jpg"})], "messages") == "https://example.org/a.jpg"
    from service.errors import ServiceError

    with pytest.raises(ServiceError, match="2; send one"):
        last_image([message(first, second)], "messages")


def test_images_by_url_need_an_allowed_host(api_client):
    body = {"model": "tiny", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}}]}]}  # fmt: skip
    response = api_client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_image_url"


# Ollama


def test_ollama_knows_models_with_and_without_a_tag(api_client, image_bytes):
    for name, status in (("tiny", 200), ("tiny:latest", 200), ("tiny:7b", 404), ("", 200), ("none:latest", 404)):
        assert api_client.post("/api/generate", **generate(image_bytes, name)).status_code == status
        assert api_client.post("/api/show", json={"model": name}).status_code == status
    names = [model["name"] for model in api_client.get("/api/tags").json()["models"]]
    assert names == ["tiny:latest", "other:latest"]
    assert [model["model"] for model in api_client.get("/api/ps").json()["models"]] == names


def test_ollama_streams_lines_by_default(api_client, native, image_bytes):
    for name, request in (("generate", generate), ("ollama chat", ollama_chat)):
        body = request(image_bytes, "tiny")["json"]
        del body["stream"]
        response = api_client.post(APIS[name].path, content=json.dumps(body))  # as curl -d sends it
        *words, last = [json.loads(line) for line in response.text.splitlines()]
        assert not any(line["done"] for line in words)
        assert last["done"]
        assert APIS[name].caption(last) == ""
        assert "".join(APIS[name].caption(line) for line in words) == native()[0]["text"]


@pytest.mark.parametrize("body", [{"model": "tiny"}, {"model": "tiny", "prompt": ""}, {"model": "tiny", "keep_alive": 0}])
def test_a_request_for_nothing_but_the_model_says_that_it_is_loaded(api_client, body):
    answer = api_client.post("/api/generate", json=body).json()
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    chat_answer = api_client.post("/api/chat", json={"model": "tiny", "messages": []}).json()
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
def test_ollama_refuses_what_has_no_caption(api_client, path, body):
    response = api_client.post(path, json={"model": "tiny", **body})
    assert response.status_code == 400
    assert response.json().keys() == {"error"}


# Hugging Face


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
def test_hugging_face_gets_a_list_or_an_object_by_client(api_client, native, image_bytes, agent, query, is_object):
    body = api_client.post(f"/models/tiny{query}", content=image_bytes, headers={"user-agent": agent}).json()
    assert body == ({"generated_text": native()[0]["text"]} if is_object else [{"generated_text": native()[0]["text"]}])


def test_hugging_face_parameters_are_transformers(api_client, native, image_bytes):
    def caption(**parameters):
        return api_client.post("/", json={"inputs": plain(image_bytes), "parameters": parameters}).json()

    assert caption(max_new_tokens=2)[0]["generated_text"] == native(max_new_tokens=2)[0]["text"]
    greedy = native(strategy="greedy")[0]["text"]
    assert caption(generation_parameters={"num_beams": 1})[0]["generated_text"] == greedy
    sampled = native(strategy="sample", temperature=1.4, seed=3)[0]["text"]
    assert caption(generate_kwargs={"do_sample": True, "temperature": 1.4, "seed": 3})[0]["generated_text"] == sampled
    several = caption(generation_kwargs={"num_beams": 4, "num_return_sequences": 4, "use_cache": True})
    assert [item["generated_text"] for item in several] == [c["text"] for c in native(num_beams=4, num_return_sequences=4)]
    assert api_client.post("/", json={"inputs": 5}).status_code == 400
    assert api_client.post("/models/tiny?format=xml", content=image_bytes).status_code == 400
    assert api_client.post("/", json={"inputs": "", "parameters": {"generation_parameters": 5}}).status_code == 400


# Azure


@pytest.mark.parametrize("parameters", [{"max_new_tokens": 5000}, {"model": "none"}, {"maps": "none", "map_size": "9x9"}])
def test_hugging_face_clamps_limits_and_ignores_other_names(api_client, native, image_bytes, parameters):
    body = {"inputs": plain(image_bytes), "parameters": parameters}
    assert api_client.post("/models/tiny", json=body).json() == [{"generated_text": native()[0]["text"]}]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models/tiny", {"user-agent": "@huggingface/inference/" + "9" * 5000 + ".1.1"}),
        ("/v2/models/tiny/infer", {"inference-header-content-length": "0" * 12 + "1" * 5000}),
    ],
)
def test_endless_numbers_in_headers_are_no_bugs(api_client, image_bytes, path, headers):
    assert api_client.post(path, content=image_bytes, headers=headers).status_code in (200, 400)


def test_instructions_that_are_no_text_are_not_sent_back(api_client, image_bytes):
    body = responses(image_bytes, "tiny")["json"] | {"instructions": [{"role": "user", "content": "x"}]}
    response = api_client.post("/v1/responses", content=json.dumps(body))
    assert response.status_code == 200
    assert response.json()["instructions"] is None


def test_azure_takes_bytes_a_form_or_a_url_and_says_the_size(api_client, native, image_bytes):
    query = analyze(image_bytes, "tiny")["params"]
    path = APIS["azure"].path
    for arguments in (
        {"content": image_bytes},
        {"content": image_bytes, "headers": {"content-type": "image/jpeg"}},
        {"files": {"file": ("a.jpg", image_bytes)}},
    ):
        body = api_client.post(path, params=query, **arguments).json()
        assert body["captionResult"]["text"] == native()[0]["text"]
        assert 0 < body["captionResult"]["confidence"] < 1
        assert body["metadata"] == {"width": 120, "height": 90}
    refused = api_client.post(path, params=query, json={"url": "https://example.org/a.jpg"})
    assert refused.json()["error"]["innererror"]["code"] == "InvalidImageUrl"


@pytest.mark.parametrize(
    ("changed", "inner"),
    [
        ({"features": "caption,denseCaptions"}, "NotSupportedVisualFeature"),
        ({"features": ""}, "NotSupportedVisualFeature"),
        ({"api-version": ""}, "InvalidParameter"),
        ({"language": "xx"}, "NotSupportedLanguage"),
        ({"model-version": "1999-01-01"}, "InvalidModelVersion"),
    ],
)
def test_azure_refuses_by_its_own_codes(api_client, image_bytes, changed, inner):
    arguments = analyze(image_bytes, "tiny")
    arguments["params"] |= changed
    response = api_client.post(APIS["azure"].path, **arguments)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["innererror"]["code"] == inner
    assert response.headers["x-ms-error-code"] == error["code"] == "InvalidRequest"


def test_gender_neutral_captions_keep_everything_else():
    from model import Caption, Word

    text = "A man, two boys and women's hats: a Woman."
    words, end = [], 0
    for part in ("A", "man", "two", "boys", "and", "women's", "hats", "a", "Woman"):
        start = text.index(part, end)
        words.append(Word(part, start, start + len(part), -1.0, None, None, None, before=text[end:start]))
        end = start + len(part)
    assert _neutral_text(Caption(text, tuple(words), -1.0, "stop")) == "A person, two children and women's hats: a Person."


# Open Inference Protocol


def test_binary_tensors_go_in_and_out(api_client, native, image_bytes):
    element = struct.pack("<I", len(image_bytes)) + image_bytes
    document = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}],
        "outputs": [{"name": "attention", "parameters": {"binary_data": True}}, {"name": "caption"}],
        "id": "7",
    }
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(head))}
    response = api_client.post("/v2/models/tiny/versions/1/infer", content=head + element, headers=headers)
    length = int(response.headers["inference-header-content-length"])
    body = json.loads(response.content[:length])
    maps, caption = body["outputs"]
    assert body["id"] == "7"
    assert caption["data"] == [native()[0]["text"]]
    words, rows, columns = maps["shape"]
    values = struct.unpack(f"<{words * rows * columns}f", response.content[length:])
    expected = [value for word in native()[0]["words"] for value in word["map"]["values"]]
    assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("length", "tail"),
    [("x", b""), ("99999999", b""), ("-1", b""), (None, struct.pack("<I", 5) + b"abc"), (None, b"ab"), (None, b"")],
)
def test_damaged_binary_tensors_are_a_400(api_client, length, tail):
    parameters = {"binary_data_size": len(tail)}
    head = json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "BYTES", "parameters": parameters}]}).encode()
    headers = {"inference-header-content-length": length or str(len(head))}
    response = api_client.post("/v2/models/tiny/infer", content=head + tail, headers=headers)
    assert response.status_code == 400
    assert response.json().keys() == {"error"}


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": []},
        {"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
        {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["AAAA", "AAAA"]}]},
        {"outputs": [{"name": "logits"}]},
        {"outputs": [{}]},
        {"parameters": {"maps": "none"}},
        {"parameters": {"num_beams": 99}},
    ],
)
def test_open_inference_refuses_other_tensors(api_client, image_bytes, changed):
    response = api_client.post("/v2/models/tiny/infer", json=infer(image_bytes, "tiny")["json"] | changed)
    assert response.status_code == 400
    assert response.json().keys() == {"error"}


def test_models_have_one_version(api_client):
    assert api_client.get("/v2/models/tiny").json()["versions"] == ["1"]
    assert api_client.get("/v2/models/tiny/versions/1/ready").json() == {"name": "tiny", "ready": True}
    assert api_client.get("/v2/models/tiny/versions/2").status_code == 404
    assert api_client.get("/v2/models/none").status_code == 404
    assert api_client.get("/v2").json()["extensions"] == ["binary_tensor_data"]


# IBM MAX, Moondream, Replicate, MCP


def test_max_returns_three_captions_with_text_indexes(api_client, native, image_bytes):
    body = send(api_client, "max", image_bytes).json()
    assert body["status"] == "ok"
    assert [entry["index"] for entry in body["predictions"]] == ["0", "1", "2"]
    own = native(num_beams=3, num_return_sequences=3)
    assert [entry["caption"] for entry in body["predictions"]] == [caption["text"] for caption in own]
    assert body["predictions"][0]["probability"] == pytest.approx(2.718281828 ** own[0]["log_probability"])
    assert api_client.get("/model/metadata").json()["id"] == "tiny"
    assert api_client.post("/model/predict", content=image_bytes).status_code == 400


@pytest.mark.parametrize(("length", "penalty"), [("short", -2), ("normal", 1), ("long", 3)])
def test_the_length_of_moondream_is_the_length_penalty(api_client, native, image_bytes, length, penalty):
    body = {"image_url": data_url(image_bytes), "length": length, "model": "tiny"}
    assert api_client.post("/v1/caption", json=body).json()["caption"] == native(length_penalty=penalty)[0]["text"]
    assert api_client.post("/v1/caption", json=body | {"length": "epic"}).status_code == 400


def test_predictions_keep_their_id_and_call_no_webhook(api_client, native, image_bytes):
    body = {"id": "mine", "input": {"image": data_url(image_bytes), "num_beams": 5, "other": 1}, "version": "a/tiny:other"}
    answer = api_client.post("/v1/predictions", json=body).json()
    assert (answer["id"], answer["status"], answer["version"]) == ("mine", "succeeded", "other")
    assert answer["input"] == {"num_beams": 5}
    assert answer["output"] == native(num_beams=5)[0]["text"]
    assert answer["metrics"]["predict_time"] > 0
    refused = api_client.post("/predictions", json=body | {"webhook": "https://example.org"})
    assert refused.json()["errors"][0]["pointer"] == "/webhook"
    wrong = api_client.post("/predictions", json={"input": {"image": data_url(image_bytes), "num_beams": 99}})
    assert wrong.json()["errors"][0]["pointer"] == "/input/num_beams"
    assert api_client.post("/predictions", json={"input": {}}).json()["errors"][0]["pointer"] == "/input/image"
    named = {"image": data_url(image_bytes), "model": "none"}
    assert api_client.post("/v1/models/a/tiny/predictions", json={"input": named}).status_code == 200
    assert api_client.get("/health-check").json() == {"status": "READY"}
    assert api_client.post("/predictions", json=body, headers={"accept": "text/html"}).status_code == 406


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("http://[bad", 403), ("null", 403), ("http://localhost:3000", 200)]
)
def test_pages_of_other_origins_cannot_use_mcp(api_client, origin, status):
    pytest.importorskip("mcp")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"origin": origin, "accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    response = api_client.post("/mcp", json=body, headers=headers)
    assert response.status_code == status
    if status == 200:
        assert [tool["name"] for tool in response.json()["result"]["tools"]] == ["caption_image", "explain_caption"]
    else:
        assert response.json()["error"]["code"] == -32000


def test_mcp_captions_an_image_with_a_contact_sheet(api_client, native, image_bytes):
    pytest.importorskip("mcp")
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}

    def call(name, **arguments):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        return api_client.post("/mcp", json=body, headers=headers).json()["result"]

    result = call("caption_image", image=plain(image_bytes))
    assert result["structuredContent"]["captions"][0]["text"] == native()[0]["text"]
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert base64.b64decode(result["content"][1]["data"])[:8] == b"\x89PNG\r\n\x1a\n"
    failed = call("caption_image", image="bm8=")
    assert failed["isError"]
    assert failed["content"][0]["text"].startswith("unsupported_image_format: ")
    explained = call("explain_caption", image=plain(image_bytes), caption="a dog", contact_sheet=False)
    assert [word["text"] for word in explained["structuredContent"]["captions"][0]["words"]] == ["a", "dog"]
    assert len(explained["content"]) == 1
    assert api_client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


def test_mcp_takes_json_alone(api_client):
    response = api_client.post("/mcp", content=b"{}")
    assert response.status_code == 415
    assert response.json()["error"]["code"] == -32000


def test_mcp_without_its_package_says_what_to_install(api_client, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    response = api_client.post("/mcp", json={})
    assert response.status_code == 404
    assert "pip install mcp" in response.json()["error"]["message"]
