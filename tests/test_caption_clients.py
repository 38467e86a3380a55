"""Programs that caption images through the OpenAI or Ollama API: their requests, and what their parsers need.

The bodies are written anew from the programs' public sources (2025 and 2026); docs/apis.md lists the versions. The parsers of Go
programs accept no other types: integers for counts and durations, RFC 3339 for moments.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr

from service import Settings, create_app
from tests.compatible import data_url, plain


class Strict(BaseModel):
    """A Go struct: unknown members are ignored, missing ones are zero, other types are errors."""

    model_config = ConfigDict(extra="ignore", strict=True)


class GoOllama(Strict):
    id: StrictStr = ""
    code: StrictInt = 0
    error: StrictStr = ""
    model: StrictStr = ""
    created_at: StrictStr
    response: StrictStr = ""
    message: dict[str, Any] = {}
    done: StrictBool
    done_reason: StrictStr = ""
    context: list[int] = []
    total_duration: StrictInt = 0
    load_duration: StrictInt = 0
    prompt_eval_count: StrictInt = 0
    prompt_eval_duration: StrictInt = 0
    eval_count: StrictInt = 0
    eval_duration: StrictInt = 0


class GoContent(Strict):
    type: StrictStr
    text: StrictStr


class GoOutput(Strict):
    role: StrictStr
    content: list[GoContent]


class GoResponses(Strict):
    id: StrictStr
    model: StrictStr
    output: list[GoOutput]
    error: None


class GoUsage(Strict):
    prompt_tokens: StrictInt
    completion_tokens: StrictInt
    total_tokens: StrictInt


class GoMessage(Strict):
    role: StrictStr
    content: StrictStr


class GoChoice(Strict):
    index: StrictInt
    message: GoMessage
    finish_reason: StrictStr


class GoCompletion(Strict):
    id: StrictStr
    created: StrictInt
    object: StrictStr
    model: StrictStr
    choices: list[GoChoice]
    usage: GoUsage


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with TestClient(create_app({"caption": tiny_captioner}, Settings())) as client:
        yield client


@pytest.fixture(scope="module")
def text(api_client, image_bytes):
    return api_client.post("/v1/captions", content=image_bytes).json()["captions"][0]["text"]


def go_ollama(line: str) -> GoOllama:
    answer = GoOllama.model_validate_json(line)
    datetime.fromisoformat(answer.created_at)
    assert answer.created_at.endswith("Z")
    return answer


def test_photoprism_with_ollama_gets_a_caption(api_client, image_bytes, text):
    body = {
        "id": "5e8c1ab2", "model": "caption:latest", "prompt": "Create a caption with exactly one sentence in the active voice.",
        "suffix": "", "stream": False, "think": False, "options": {"temperature": 0.0}, "images": [plain(image_bytes)],
    }  # fmt: skip
    response = api_client.post("/api/generate", json=body)
    assert response.status_code == 200
    [line] = response.text.splitlines()  # it decodes objects until the end and keeps the last one
    answer = go_ollama(line)
    assert answer.response == text
    assert not answer.response.startswith("{")


def test_photoprism_with_ollama_gets_no_labels_but_a_reason(api_client, image_bytes):
    body = {
        "id": "5e8c1ab2", "model": "caption:latest", "format": "json", "suffix": "", "stream": False, "think": False,
        "system": "You output JSON.", "prompt": "Return label objects.", "images": [plain(image_bytes)],
        "options": {"temperature": 0.1, "top_p": 0.9, "stop": ["\n\n"]},
    }  # fmt: skip
    response = api_client.post("/api/generate", json=body)
    assert response.status_code == 400  # prose would be "0 labels" without any message
    assert "plain text" in response.json()["error"]


def test_photoprism_with_openai_gets_a_caption(api_client, image_bytes, text):
    parts = [{"type": "input_text", "text": "Provide exactly one sentence."},
             {"type": "input_image", "image_url": data_url(image_bytes), "detail": "low"}]  # fmt: skip
    system = [{"type": "input_text", "text": "You are a vision model."}]
    body = {
        "model": "caption", "reasoning": {"effort": "low"}, "max_output_tokens": 512,
        "input": [{"role": "system", "type": "message", "content": system},
                  {"role": "user", "type": "message", "content": parts}],
    }  # fmt: skip
    response = api_client.post("/v1/responses", json=body)
    assert response.status_code == 200
    answer = GoResponses.model_validate_json(response.text)
    assert next(content.text for output in answer.output for content in output.content if content.text) == text
    body["text"] = {"format": {"type": "json_schema", "name": "labels", "schema": {"type": "object"}}}
    refused = api_client.post("/v1/responses", json=body)
    assert refused.status_code == 400
    assert isinstance(refused.json()["error"], dict)


def test_immich_analyze_gets_a_caption_from_both_apis(api_client, image_bytes, text):
    prompt = "Create a detailed description for the image for proper image search functionality."
    ollama = {
        "model": "caption",
        "messages": [{"role": "user", "content": prompt, "images": [plain(image_bytes)]}],
        "stream": False,
    }
    assert api_client.post("/api/chat", json=ollama).json()["message"]["content"] == text
    parts = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": data_url(image_bytes)}}]
    openai = {"model": "caption", "messages": [{"role": "user", "content": parts}], "stream": False}
    assert api_client.post("/v1/chat/completions", json=openai).json()["choices"][0]["message"]["content"] == text


def test_immich_analyze_may_name_a_wrong_image_type(api_client, photo):
    webp = photo(120, 90, "WEBP")
    parts = [{"type": "image_url", "image_url": {"url": data_url(webp)}}]  # data:image/jpeg
    body = {"model": "caption", "messages": [{"role": "user", "content": parts}], "stream": False}
    assert api_client.post("/v1/chat/completions", json=body).status_code == 200


def test_immich_go_analyze_gets_a_caption(api_client, image_bytes):
    message = {"role": "user", "content": "Describe this image concisely.", "images": [plain(image_bytes)]}
    body = {"model": "caption", "messages": [message], "stream": False, "options": {"num_predict": 500, "temperature": 0.1}}
    response = api_client.post("/api/chat", json=body)
    assert response.status_code == 200
    assert go_ollama(response.text).message["content"]


def test_json_for_the_ai_addon_of_immich_is_refused_with_a_reason(api_client, image_bytes):
    parts = [{"type": "text", "text": "labels"}, {"type": "image_url", "image_url": {"url": data_url(image_bytes)}}]
    body = {"model": "caption", "stream": False, "messages": [{"role": "user", "content": parts}],
            "response_format": {"type": "json_object"}}  # fmt: skip
    response = api_client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert "response_format" in response.json()["error"]["message"]


def test_open_webui_lists_models_of_both_connections(api_client):
    assert [model["id"] for model in api_client.get("/v1/models").json()["data"]] == ["caption"]
    version = api_client.get("/api/version").json()["version"]
    assert all(part.isdecimal() for part in version.split("."))
    for model in api_client.get("/api/tags").json()["models"]:
        assert model["name"] == model["model"] == "caption:latest"
    for model in api_client.get("/api/ps").json()["models"]:
        datetime.fromisoformat(model["expires_at"])


def test_open_webui_streams_a_chat_with_tools_and_without_text(api_client, image_bytes, text):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image_bytes)}}]  # it drops empty text
    tools = [{"type": "function", "function": {"name": "get_current_timestamp", "parameters": {"type": "object"}}}]
    body = {"stream": True, "model": "caption", "messages": [{"role": "user", "content": parts}], "tools": tools}
    response = api_client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    content = ""
    for line in response.text.splitlines():
        if not line.startswith("data:") or line == "data: [DONE]":
            assert not line.startswith("{")
            continue
        event = json.loads(line[5:])
        if event["choices"]:
            assert isinstance(event["choices"][0]["delta"], dict)
            content += event["choices"][0]["delta"].get("content") or ""
    assert content == text


def test_open_webui_streams_an_ollama_chat_line_by_line(api_client, image_bytes, text):
    message = {"role": "user", "images": [plain(image_bytes)]}  # an image alone: there is no content
    body = {"model": "caption:latest", "messages": [message], "stream": True, "tools": [], "options": {"num_predict": 1000}}
    lines = api_client.post("/api/chat", json=body).text.split("\n")
    assert lines.pop() == ""
    answers = [json.loads(line) for line in lines]  # every line, without a guard
    assert "".join(answer["message"]["content"] for answer in answers) == text
    for name in ("prompt_eval_count", "eval_count", "eval_duration", "prompt_eval_duration", "total_duration", "load_duration"):
        assert isinstance(answers[-1][name], int)


def test_open_webui_reads_no_error_in_a_caption(api_client, image_bytes):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image_bytes)}}]
    body = {"model": "caption", "messages": [{"role": "user", "content": parts}], "stream": False}
    assert "error" not in api_client.post("/v1/chat/completions", json=body).json()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_tasks_of_open_webui_and_librechat_are_refused_in_json(api_client, path):
    """Titles, tags and follow-ups are text: a caption would become the title of the chat."""
    message = {"role": "user", "content": "### Task:\nGenerate a concise title."}
    response = api_client.post(path, json={"model": "caption", "messages": [message], "stream": False, "max_tokens": 1000})
    assert response.status_code == 400
    assert "image" in json.dumps(response.json()["error"])


def test_paperless_gpt_gets_a_caption_from_openai(api_client, image_bytes, text):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image_bytes)}}, {"type": "text", "text": "Transcribe"}]
    body = {"model": "caption", "messages": [{"role": "user", "content": parts}], "temperature": 0, "max_completion_tokens": 500}
    response = api_client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    answer = GoCompletion.model_validate_json(response.text)
    assert answer.choices[0].message.content == text


def test_paperless_gpt_gets_a_caption_from_ollama(api_client, image_bytes, text):
    message = {"role": "user", "content": "Transcribe", "images": [plain(image_bytes)]}
    body = {"model": "caption", "messages": [message], "format": "", "options": {"temperature": 0}}  # stream is left out
    headers = {"accept": "application/x-ndjson"}
    answers = [go_ollama(line) for line in api_client.post("/api/chat", json=body, headers=headers).text.splitlines()]
    assert "".join(answer.message["content"] for answer in answers) == text
    assert [answer.done for answer in answers].count(True) == 1
    failed = api_client.post("/api/chat", json=body | {"messages": []})
    assert failed.status_code == 200  # a model is loaded by a request without messages
    refused = api_client.post("/api/chat", json=body | {"model": "none"})
    assert isinstance(refused.json()["error"], str)


def test_librechat_streams_with_a_role_and_usage(api_client, image_bytes, text):
    url = {"url": data_url(image_bytes).replace("image/jpeg", "image/webp"), "detail": "auto"}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}]
    body = {"model": "caption", "user": "0123456789abcdef01234567", "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": parts}]}  # fmt: skip
    response = api_client.post("/v1/chat/completions", json=body)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]) == text
    assert set(events[-1]["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


@pytest.mark.parametrize("body", [b"no image", b"\xff\xd8\xff\xe0 no more"])
def test_librechat_does_not_repeat_a_request_with_a_broken_image(api_client, body):
    parts = [{"type": "image_url", "image_url": {"url": data_url(body)}}]
    response = api_client.post(
        "/v1/chat/completions", json={"model": "caption", "messages": [{"role": "user", "content": parts}]}
    )
    assert response.status_code == 400  # 413, 415, 422, 429 and 5xx are repeated six times
    assert response.json()["error"]["message"]
