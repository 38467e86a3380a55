"""What the OpenAI API does that others do not: sampling, limits, refusals, conversations."""

from __future__ import annotations

import pytest

from service.http.dialects.openai.content import last_image
from tests.compatible import APIS, chat, data_url, responses


def text_of(client, name, arguments) -> str:
    response = client.post(APIS[name].path, **arguments)
    assert response.status_code == 200, response.text
    return APIS[name].caption(response.json())


def test_temperature_samples_with_the_seed_and_zero_does_not(client, native, image_bytes):
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
        assert text_of(client, "chat", changed) == native(**own)[0]["text"], options


def test_n_is_the_number_of_captions_up_to_eight(client, native, image_bytes):
    body = chat(image_bytes, "tiny")["json"]
    choices = client.post("/v1/chat/completions", json=body | {"n": 5}).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == [
        caption["text"] for caption in native(num_beams=5, num_return_sequences=5)
    ]
    response = client.post("/v1/chat/completions", json=body | {"n": 9})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"


def test_a_token_limit_only_lowers_the_checkpoints(client, native, image_bytes):
    body = chat(image_bytes, "tiny")["json"]
    assert text_of(client, "chat", {"json": body | {"max_tokens": 100_000}}) == native()[0]["text"]
    for name in ("max_tokens", "max_completion_tokens"):
        choice = client.post("/v1/chat/completions", json=body | {name: 2}).json()["choices"][0]
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
def test_what_a_captioner_cannot_do_is_refused_by_name(client, image_bytes, member, value):
    response = client.post("/v1/chat/completions", json=chat(image_bytes, "tiny")["json"] | {member: value})
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
def test_the_responses_api_refuses_what_needs_storage_or_json(client, image_bytes, member, value):
    response = client.post("/v1/responses", json=responses(image_bytes, "tiny")["json"] | {member: value})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_unknown_members_and_tools_are_ignored(client, native, image_bytes):
    extra = {"tools": [{"type": "function"}], "user": "u", "frequency_penalty": 1, "logit_bias": {"1": 2}, "tool_choice": "auto",
             "response_format": {"type": "text"}}  # fmt: skip
    assert text_of(client, "chat", {"json": chat(image_bytes, "tiny")["json"] | extra}) == native()[0]["text"]


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


def test_images_by_url_need_an_allowed_host(client):
    body = {"model": "tiny", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}}]}]}  # fmt: skip
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_image_url"
