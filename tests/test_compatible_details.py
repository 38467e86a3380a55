"""What the APIs of Azure, Open Inference, IBM MAX, Moondream, Replicate and MCP do that others do not."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from service.http.dialects.azure import _neutral_text
from tests.compatible import APIS, analyze, data_url, infer, plain, responses, send


@pytest.mark.parametrize("parameters", [{"max_new_tokens": 5000}, {"model": "none"}, {"maps": "none", "map_size": "9x9"}])
def test_hugging_face_clamps_limits_and_ignores_other_names(client, native, image_bytes, parameters):
    body = {"inputs": plain(image_bytes), "parameters": parameters}
    assert client.post("/models/tiny", json=body).json() == [{"generated_text": native()[0]["text"]}]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models/tiny", {"user-agent": "@huggingface/inference/" + "9" * 5000 + ".1.1"}),
        ("/v2/models/tiny/infer", {"inference-header-content-length": "0" * 12 + "1" * 5000}),
    ],
)
def test_endless_numbers_in_headers_are_no_bugs(client, image_bytes, path, headers):
    assert client.post(path, content=image_bytes, headers=headers).status_code in (200, 400)


def test_instructions_that_are_no_text_are_not_sent_back(client, image_bytes):
    body = responses(image_bytes, "tiny")["json"] | {"instructions": [{"role": "user", "content": "x"}]}
    response = client.post("/v1/responses", content=json.dumps(body))
    assert response.status_code == 200
    assert response.json()["instructions"] is None


def test_azure_takes_bytes_a_form_or_a_url_and_says_the_size(client, native, image_bytes):
    query = analyze(image_bytes, "tiny")["params"]
    path = APIS["azure"].path
    for arguments in (
        {"content": image_bytes},
        {"content": image_bytes, "headers": {"content-type": "image/jpeg"}},
        {"files": {"file": ("a.jpg", image_bytes)}},
    ):
        body = client.post(path, params=query, **arguments).json()
        assert body["captionResult"]["text"] == native()[0]["text"]
        assert 0 < body["captionResult"]["confidence"] < 1
        assert body["metadata"] == {"width": 120, "height": 90}
    refused = client.post(path, params=query, json={"url": "https://example.org/a.jpg"})
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
def test_azure_refuses_by_its_own_codes(client, image_bytes, changed, inner):
    arguments = analyze(image_bytes, "tiny")
    arguments["params"] |= changed
    response = client.post(APIS["azure"].path, **arguments)
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


def test_binary_tensors_go_in_and_out(client, native, image_bytes):
    element = struct.pack("<I", len(image_bytes)) + image_bytes
    document = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}],
        "outputs": [{"name": "attention", "parameters": {"binary_data": True}}, {"name": "caption"}],
        "id": "7",
    }
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(head))}
    response = client.post("/v2/models/tiny/versions/1/infer", content=head + element, headers=headers)
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
def test_damaged_binary_tensors_are_a_400(client, length, tail):
    parameters = {"binary_data_size": len(tail)}
    head = json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "BYTES", "parameters": parameters}]}).encode()
    headers = {"inference-header-content-length": length or str(len(head))}
    response = client.post("/v2/models/tiny/infer", content=head + tail, headers=headers)
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
def test_open_inference_refuses_other_tensors(client, image_bytes, changed):
    response = client.post("/v2/models/tiny/infer", json=infer(image_bytes, "tiny")["json"] | changed)
    assert response.status_code == 400
    assert response.json().keys() == {"error"}


def test_models_have_one_version(client):
    assert client.get("/v2/models/tiny").json()["versions"] == ["1"]
    assert client.get("/v2/models/tiny/versions/1/ready").json() == {"name": "tiny", "ready": True}
    assert client.get("/v2/models/tiny/versions/2").status_code == 404
    assert client.get("/v2/models/none").status_code == 404
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]


def test_max_returns_three_captions_with_text_indexes(client, native, image_bytes):
    body = send(client, "max", image_bytes).json()
    assert body["status"] == "ok"
    assert [entry["index"] for entry in body["predictions"]] == ["0", "1", "2"]
    own = native(num_beams=3, num_return_sequences=3)
    assert [entry["caption"] for entry in body["predictions"]] == [caption["text"] for caption in own]
    assert body["predictions"][0]["probability"] == pytest.approx(2.718281828 ** own[0]["log_probability"])
    assert client.get("/model/metadata").json()["id"] == "tiny"
    assert client.post("/model/predict", content=image_bytes).status_code == 400


@pytest.mark.parametrize(("length", "penalty"), [("short", -2), ("normal", 1), ("long", 3)])
def test_the_length_of_moondream_is_the_length_penalty(client, native, image_bytes, length, penalty):
    body = {"image_url": data_url(image_bytes), "length": length, "model": "tiny"}
    assert client.post("/v1/caption", json=body).json()["caption"] == native(length_penalty=penalty)[0]["text"]
    assert client.post("/v1/caption", json=body | {"length": "epic"}).status_code == 400


def test_predictions_keep_their_id_and_call_no_webhook(client, native, image_bytes):
    body = {"id": "mine", "input": {"image": data_url(image_bytes), "num_beams": 5, "other": 1}, "version": "a/tiny:other"}
    answer = client.post("/v1/predictions", json=body).json()
    assert (answer["id"], answer["status"], answer["version"]) == ("mine", "succeeded", "other")
    assert answer["input"] == {"num_beams": 5}
    assert answer["output"] == native(num_beams=5)[0]["text"]
    assert answer["metrics"]["predict_time"] > 0
    refused = client.post("/predictions", json=body | {"webhook": "https://example.org"})
    assert refused.json()["errors"][0]["pointer"] == "/webhook"
    wrong = client.post("/predictions", json={"input": {"image": data_url(image_bytes), "num_beams": 99}})
    assert wrong.json()["errors"][0]["pointer"] == "/input/num_beams"
    assert client.post("/predictions", json={"input": {}}).json()["errors"][0]["pointer"] == "/input/image"
    named = {"image": data_url(image_bytes), "model": "none"}
    assert client.post("/v1/models/a/tiny/predictions", json={"input": named}).status_code == 200
    assert client.get("/health-check").json() == {"status": "READY"}
    assert client.post("/predictions", json=body, headers={"accept": "text/html"}).status_code == 406


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("http://[bad", 403), ("null", 403), ("http://localhost:3000", 200)]
)
def test_pages_of_other_origins_cannot_use_mcp(client, origin, status):
    pytest.importorskip("mcp")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"origin": origin, "accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    response = client.post("/mcp", json=body, headers=headers)
    assert response.status_code == status
    if status == 200:
        assert [tool["name"] for tool in response.json()["result"]["tools"]] == ["caption_image", "explain_caption"]
    else:
        assert response.json()["error"]["code"] == -32000


def test_mcp_captions_an_image_with_a_contact_sheet(client, native, image_bytes):
    pytest.importorskip("mcp")
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}

    def call(name, **arguments):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        return client.post("/mcp", json=body, headers=headers).json()["result"]

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
    assert client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


def test_mcp_takes_json_alone(client):
    response = client.post("/mcp", content=b"{}")
    assert response.status_code == 415
    assert response.json()["error"]["code"] == -32000


def test_mcp_without_its_package_says_what_to_install(client, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    response = client.post("/mcp", json={})
    assert response.status_code == 404
    assert "pip install mcp" in response.json()["error"]["message"]
