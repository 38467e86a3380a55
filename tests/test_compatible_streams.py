"""Streams of the compatible APIs: their pieces, their failures, and clients that leave."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from tests.compatible import APIS, MCP_HEADERS, STREAMS, lines_of_events, plain, serving, stream
from tests.connections import EMPTY, SECONDS, connect, head, listening, port_of
from tests.helpers import failing, paused, wait_until


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with serving(tiny_captioner, max_body_bytes=50_000) as client:
        yield client


@pytest.fixture(scope="module")
def native(api_client, image_bytes):
    return api_client.post("/v1/captions", content=image_bytes).json()["captions"][0]


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


def test_a_stream_of_several_captions_has_chunks_of_deltas_alone(api_client, image_bytes):
    response = stream(api_client, "chat", image_bytes, n=3, logprobs=True)
    choices = [choice for event in lines_of_events(response.text) for choice in event["choices"]]
    assert all(choice.keys() == {"index", "delta", "logprobs", "finish_reason"} for choice in choices)
    assert {choice["index"] for choice in choices} == {0, 1, 2}
    tokens = [entry["token"] for choice in choices if choice["index"] == 0 for entry in choice["logprobs"]["content"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == 0)
    assert text.startswith("".join(tokens))
    assert tokens


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
