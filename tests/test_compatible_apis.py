"""What holds for every compatible API: the native caption, its own errors, the limits of the service."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tomllib

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from service.version import VERSION
from tests.compatible import APIS, lines_of_events, plain, send
from tests.connections import EMPTY, SECONDS, connect, head, listening, port_of
from tests.helpers import failing, paused, wait_until, watched
from tests.test_architecture import ROOT

MCP_HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
INSTRUCTIONS = ["Describe this image", "<CAPTION>", "What is in the image? Answer in JSON.", "a photo of", "x" * 5000]


@contextlib.contextmanager
def serving(captioner, **settings):
    app = create_app({"tiny": captioner}, Settings(**settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with serving(tiny_captioner, max_body_bytes=50_000) as client:
        yield client


@pytest.fixture(scope="module")
def native(api_client, image_bytes):
    return api_client.post("/v1/captions", content=image_bytes).json()["captions"][0]


def check_error(response, name: str, status: int) -> str:
    """Check an error's status and shape, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] in ("application/json", "application/problem+json")
    assert response.headers["x-request-id"]
    message = APIS[name].message(response.json())
    assert isinstance(message, str)
    assert message
    return message


@pytest.mark.parametrize("name", APIS)
def test_the_caption_is_the_native_one(api_client, native, image_bytes, name):
    response = send(api_client, name, image_bytes)
    assert response.status_code == 200, response.text
    assert APIS[name].caption(response.json()) == native["text"]
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("text", INSTRUCTIONS, ids=lambda text: text[:20])
@pytest.mark.parametrize("name", ["chat", "responses", "generate", "ollama chat", "cog"])
def test_an_instruction_is_not_the_beginning_of_the_caption(api_client, native, image_bytes, name, text):
    assert APIS[name].caption(send(api_client, name, image_bytes, text=text).json()) == native["text"]


@pytest.mark.parametrize("name", APIS)
def test_a_broken_image_is_the_clients_error(api_client, name):
    status = 415 if name in ("cog", "replicate") else 400
    check_error(send(api_client, name, b"no image at all"), name, status)
    check_error(send(api_client, name, b"\xff\xd8\xff\xe0 and no more of a JPEG"), name, 400)
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("name", [name for name in APIS if APIS[name].has_model])
def test_an_unknown_model_is_a_404_that_names_it(api_client, image_bytes, name):
    message = check_error(send(api_client, name, image_bytes, model="gpt-4o"), name, 404)
    assert "gpt-4o" in message


@pytest.mark.parametrize("name", APIS)
def test_a_body_over_the_limit_is_a_413(api_client, name):
    check_error(send(api_client, name, bytes(60_000)), name, 413)
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("name", APIS)
def test_overload_has_a_time_to_try_again(api_client, image_bytes, name):
    engine = api_client.app.state.engine
    with engine.admission.open() as ticket:
        ticket.take("images", engine.settings.max_queue_images)
        response = send(api_client, name, image_bytes)
    check_error(response, name, 429 if APIS[name].is_busy_429 else 503)
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("name", APIS)
def test_keys_and_rates_are_checked(tiny_captioner, image_bytes, tmp_path, name):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys), requests_per_minute=1) as client:
        check_error(send(client, name, image_bytes), name, 401)
        check_error(send(client, name, image_bytes, headers={"authorization": "Bearer other"}), name, 401)
        key = {"authorization": "Bearer a-key"}
        assert send(client, name, image_bytes, headers=key).status_code == 200
        check_error(send(client, name, image_bytes, headers=key), name, 429)


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "ocp-apim-subscription-key", "x-moondream-auth", "authorization"])
def test_the_key_may_be_in_the_header_of_any_api(tiny_captioner, image_bytes, tmp_path, header):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys)) as client:
        for value, status in (("a-key", 200), ("other", 401)):
            sent = f"Token {value}" if header == "authorization" else value
            assert client.post("/v1/captions", content=image_bytes, headers={header: sent}).status_code == status


@pytest.mark.parametrize("name", APIS)
def test_a_bug_reveals_nothing(tiny_captioner, image_bytes, name, caplog):
    captioner, runtime = watched(tiny_captioner)

    def fail(_):
        raise RuntimeError("secret")

    runtime.before_encode = fail
    with serving(captioner) as client:
        response = send(client, name, image_bytes)
    assert "secret" not in check_error(response, name, 500)
    assert "secret" in caplog.text


@pytest.mark.parametrize("name", APIS)
def test_a_deadline_is_kept(tiny_captioner, image_bytes, name):
    captioner, hook = paused(tiny_captioner)
    with serving(captioner, deadline_seconds=0.2) as client:
        try:
            check_error(send(client, name, image_bytes), name, 504)
        finally:
            hook.go_on.set()
        wait_until(lambda: client.app.state.engine.admission.used == EMPTY)


STREAMS = {
    "chat": lambda body: "".join(c["choices"][0]["delta"].get("content") or "" for c in lines_of_events(body)),
    "responses": lambda body: "".join(
        event["delta"] for event in lines_of_events(body) if event["type"] == "response.output_text.delta"
    ),
    "generate": lambda body: "".join(json.loads(line)["response"] for line in body.splitlines()),
    "ollama chat": lambda body: "".join(json.loads(line)["message"]["content"] for line in body.splitlines()),
    "moondream": lambda body: "".join(event["chunk"] for event in lines_of_events(body)),
    "cog": lambda body: "".join(event.get("chunk", "") for event in lines_of_events(body)),
}


def stream(client, name, image, **options):
    api = APIS[name]
    arguments = api.request(image, "tiny", "Describe")
    arguments["json"] |= {"stream": True, **options}
    headers = {"accept": "text/event-stream"} if name == "cog" else {}
    return client.post(api.path, headers=headers, **arguments)


@pytest.mark.parametrize("name", STREAMS)
def test_the_pieces_of_a_stream_make_the_caption(api_client, native, image_bytes, name):
    response = stream(api_client, name, image_bytes)
    assert response.headers["content-type"].partition(";")[0] in ("text/event-stream", "application/x-ndjson")
    assert STREAMS[name](response.text) == native["text"]
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("name", STREAMS)
def test_the_full_stop_of_a_sentence_is_in_the_stream(api_client, image_bytes, name):
    options = {"style": "sentence", "strategy": "greedy", "max_words": 30}
    native = api_client.post("/v1/captions", content=image_bytes, params=options).json()["captions"][0]
    response = stream(api_client, name, image_bytes, sightline=options)
    assert STREAMS[name](response.text) == native["text"]
    assert native["text"].endswith(".") == (native["finish_reason"] == "stop")


@pytest.mark.parametrize("name", STREAMS)
def test_a_failure_in_a_stream_is_its_last_event(tiny_captioner, image_bytes, name):
    with serving(failing(tiny_captioner, RuntimeError("secret"))) as client:
        response = stream(client, name, image_bytes, sightline={"maps": "attention"})
    assert response.status_code == 200
    assert "secret" not in response.text
    last = [line for line in response.text.splitlines() if line][-1].removeprefix("data: ")
    assert "bug of the service" in last
    json.loads(last)


@pytest.mark.parametrize("name", ["chat", "responses", "generate", "ollama chat", "moondream", "cog"])
def test_the_extension_adds_the_native_body(api_client, native, image_bytes, name):
    api = APIS[name]
    for value in (True, {}, {"map_size": "grid", "num_beams": 3}):
        arguments = api.request(image_bytes, "tiny", "")
        arguments["json"]["sightline"] = value
        body = api_client.post(api.path, **arguments).json()
        assert body["sightline"]["captions"][0] == native
        assert api.caption(body) == native["text"]
    arguments["json"]["sightline"] = {"no_such_option": 1}
    response = api_client.post(api.path, **arguments)
    check_error(response, name, 422 if name == "cog" else 400)
    assert "no_such_option" in response.text


@pytest.mark.parametrize("name", APIS)
def test_metrics_have_the_path_of_the_route(api_client, image_bytes, name):
    send(api_client, name, image_bytes)
    text = api_client.get("/metrics").text
    path = APIS[name].path
    known = {"/models/{model}": "/models/{name:path}", "/v2/models/{model}/infer": "/v2/models/{name}/infer",
             "/v1/models/any/{model}/predictions": "/v1/models/{owner}/{name}/predictions"}  # fmt: skip
    assert f'sightline_requests_total{{endpoint="{known.get(path, path)}",status="200"}}' in text


@pytest.mark.parametrize("name", APIS)
def test_a_wrong_method_has_the_shape_of_the_api(api_client, name):
    response = api_client.put(APIS[name].path.format(model="tiny"))
    check_error(response, name, 405)
    assert "POST" in response.headers["allow"]


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/v2/health/ready", "/v2/health/live"])
def test_probes_have_aliases_that_need_no_key(tiny_captioner, tmp_path, path):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys)) as client:
        assert client.get(path).status_code == 200
        client.app.state.engine.is_draining = True
        assert client.get(path).status_code == (200 if path.endswith("live") else 503)
        assert client.get("/version").status_code == 401


def test_the_version_is_that_of_the_project(api_client):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert api_client.get("/version").json() == {"version": project["version"]} == {"version": VERSION}


def test_a_stream_of_several_captions_has_chunks_of_deltas_alone(api_client, image_bytes):
    response = stream(api_client, "chat", image_bytes, n=3, logprobs=True)
    choices = [choice for event in lines_of_events(response.text) for choice in event["choices"]]
    assert all(choice.keys() == {"index", "delta", "logprobs", "finish_reason"} for choice in choices)
    assert {choice["index"] for choice in choices} == {0, 1, 2}
    tokens = [entry["token"] for choice in choices if choice["index"] == 0 for entry in choice["logprobs"]["content"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == 0)
    assert text.startswith("".join(tokens))
    assert tokens


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


@pytest.mark.parametrize(("name", "is_stream"), [(name, flag) for name in STREAMS for flag in (False, True)] + [("mcp", False)])
def test_the_work_of_a_client_that_leaves_is_dropped(tiny_captioner, image_bytes, name, is_stream):
    """The client closes its connection while its image waits in the encoder; nothing is decoded for it."""
    captioner, hook = paused(tiny_captioner)
    with listening(captioner) as server:
        if name == "mcp":
            pytest.importorskip("mcp")
            call = {"name": "caption_image", "arguments": {"image": plain(image_bytes)}}
            path, body = "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        else:
            arguments = APIS[name].request(image_bytes, "tiny", "")
            path, body = APIS[name].path, arguments["json"] | {"stream": is_stream}
        data = json.dumps(body).encode()
        fields = {"content_type": "application/json", "content_length": str(len(data))}
        fields |= {key.replace("-", "_"): value for key, value in MCP_HEADERS.items()}
        fields |= {"accept": "text/event-stream"} if is_stream else {}
        try:
            with connect(port_of(server)) as connection:
                connection.sendall(head(path, **fields) + data)
                assert hook.entered.wait(SECONDS)
                assert server._engine.admission.used["images"] == 1, "it is counted while it is processed"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            wait_until(lambda: server._engine.scheduler.num_unanswered == 0, SECONDS)
            wait_until(lambda: server._engine.admission.used == EMPTY, SECONDS)
        finally:
            hook.go_on.set()


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
