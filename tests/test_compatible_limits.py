"""Requests of the compatible APIs that are too large, or not what they say: refused at once, and in plain words."""

from __future__ import annotations

import json

import pytest

from tests.compatible import APIS, MCP_HEADERS, check_error, serving


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with serving(tiny_captioner, max_body_bytes=50_000) as client:
        yield client


@pytest.fixture(scope="module")
def native(api_client, image_bytes):
    return api_client.post("/v1/captions", content=image_bytes).json()["captions"][0]


@pytest.mark.parametrize("name", ["chat", "generate"])
@pytest.mark.parametrize("stop", [["x"] * 17, ["x" * 201], "x" * 201])
def test_stop_sequences_are_few_and_short(api_client, image_bytes, name, stop):
    arguments = APIS[name].request(image_bytes, "tiny", "")
    arguments["json"] |= {"stop": stop} if name == "chat" else {"options": {"stop": stop}}
    message = check_error(api_client.post(APIS[name].path, **arguments), name, 400)
    assert "at most 16 texts" in message


def test_an_error_says_what_the_innermost_member_must_be(api_client, image_bytes):
    for name, member, expected in (
        ("generate", {"options": {"temperature": 9}}, "options.temperature is 9; it must be a number from 0 to 5"),
        ("moondream", {"settings": {"max_tokens": 0}}, "settings.max_tokens is 0; it must be a positive integer"),
        ("chat", {"stop": 5}, "stop is 5; it must be text, or a list"),
    ):
        arguments = APIS[name].request(image_bytes, "tiny", "")
        arguments["json"] |= member
        assert expected in check_error(api_client.post(APIS[name].path, **arguments), name, 400)


def test_limits_hold_for_mcp_too(tiny_captioner, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with serving(tiny_captioner, keys_file=str(keys), requests_per_minute=2, max_body_bytes=1000) as client:
        engine = client.app.state.engine
        key = {"x-api-key": "a-key"}
        assert client.post("/mcp", json=body, headers=MCP_HEADERS).status_code == 401
        assert client.post("/mcp", json=body | {"x": "x" * 2000}, headers=MCP_HEADERS | key).status_code == 413
        with engine.admission.open() as ticket:
            ticket.take("images", engine.settings.max_queue_images)
            busy = client.post("/mcp", json=body, headers=MCP_HEADERS | key)
        assert (busy.status_code, int(busy.headers["retry-after"]) >= 1) == (503, True)
        limited = client.post("/mcp", json=body, headers=MCP_HEADERS | key)
        assert limited.status_code == 429
        assert limited.json()["error"]["message"]


@pytest.mark.parametrize("body", [[], [{"jsonrpc": "2.0", "id": 1, "method": "ping"}], {}, {"jsonrpc": "1.0", "method": "x"},
                                  {"jsonrpc": "2.0", "id": {}, "method": "ping"}, {"jsonrpc": "2.0", "method": 5},
                                  {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []},
                                  {"jsonrpc": "2.0", "id": 1, "result": 5}, {"jsonrpc": "2.0", "id": "x" * 201, "method": "x"},
                                  {"jsonrpc": "2.0", "id": 1, "method": "\ud800"}])  # fmt: skip
def test_what_is_no_message_of_the_protocol_is_refused_in_plain_words(api_client, body):
    headers = MCP_HEADERS | {"content-type": "application/json"}
    response = api_client.post("/mcp", content=json.dumps(body), headers=headers)
    assert response.status_code == 400
    assert "pydantic" not in response.text
    assert "validation error" not in response.text.lower()
    assert response.json()["error"]["code"] == -32000


FLOODS = {
    "numbers for messages": ("/v1/chat/completions", '{"messages": [' + "0," * 50_000 + "0]}"),
    "empty messages": ("/v1/chat/completions", '{"messages": [' + "{}," * 150_000 + "{}]}"),
    "images": ("/api/generate", '{"images": [' + "0," * 50_000 + "0]}"),
    "metadata": ("/v1/responses", '{"input": [], "metadata": {' + ",".join(f'"{n}": 0' for n in range(50_000)) + "}}"),
    "long metadata": ("/v1/responses", json.dumps({"input": [], "metadata": {"a": "x" * 513}})),
    "options": ("/v1/caption", '{"image_url": "x", "sightline": {' + ",".join(f'"{n}": 0' for n in range(50_000)) + "}}"),
    "tensors": ("/v2/models/tiny/infer", '{"inputs": [' + "0," * 50_000 + "0]}"),
    "lists": ("/v1/responses", '{"input": [], "instructions": [' + "[]," * 150_000 + "1]}"),
    "parts": (
        "/model/predict",
        "".join(f'--B\r\nContent-Disposition: form-data; name="x{n}"\r\n\r\nv\r\n' for n in range(60)),
    ),
    "parameters of a part": (
        "/model/predict",
        '--B\r\nContent-Disposition: form-data; name="image"' + ";" * 4000 + "\r\n\r\nv\r\n--B--\r\n",
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_of_entries_are_refused_before_they_cost_time(tiny_captioner, flood):
    path, body = FLOODS[flood]
    kind = "multipart/form-data; boundary=B" if path == "/model/predict" else "application/json"
    with serving(tiny_captioner) as client:
        response = client.post(path, content=body, headers={"content-type": kind})
    assert response.status_code == 400
    assert len(response.text) < 2000, "there is one error, not one per entry"


@pytest.mark.parametrize(
    "member",
    [
        '"sightline": {"\\ud800": 1}', '"instructions": "\\ud800"', '"metadata": {"a": "\\udfff"}',
        '"metadata": {"\\ud800": "a"}',
        '"metadata": {"values": "@"}', '"instructions": "\\ud83d\\ude00"', '"instructions": "\\\\ud800"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_stream", ["true", "false"])
def test_texts_that_are_sent_back_can_be_encoded(api_client, native, image_bytes, member, is_stream):
    body = json.dumps(APIS["responses"].request(image_bytes, "tiny", "x")["json"])
    response = api_client.post("/v1/responses", content=f'{body[:-1]}, "stream": {is_stream}, {member}}}')
    is_complete = any(text in member for text in ('"@"', "\\ude00", "\\\\ud800"))
    assert response.status_code == (200 if is_complete else 400), response.text
    if is_complete:
        assert json.dumps(native["text"], ensure_ascii=False) in response.text
    else:
        assert "surrogate" in check_error(response, "responses", 400)
