"""The package openai: chat completions, responses, models."""

from __future__ import annotations

import math

import pytest

BROKEN = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="


def client_of(service, key="any"):
    import openai

    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0)


def messages(url: str) -> list:
    parts = [{"type": "text", "text": "Describe this image"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": "You describe images."}, {"role": "user", "content": parts}]


def inputs(url: str) -> list:
    parts = [{"type": "input_text", "text": "Describe"}, {"type": "input_image", "image_url": url, "detail": "low"}]
    return [{"role": "user", "content": parts}]


def test_a_chat_completion_is_the_caption(service, text):
    completion = client_of(service).chat.completions.create(model="default", messages=messages(service.data_url))
    [choice] = completion.choices
    assert choice.message.content == text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert completion.usage.prompt_tokens == 196
    assert completion.usage.total_tokens == 196 + completion.usage.completion_tokens
    assert completion.usage.completion_tokens > len(text.split())


def test_logprobs_make_up_the_text(service, text):
    arguments = {"model": "default", "messages": messages(service.data_url), "logprobs": True, "top_logprobs": 3}
    completion = client_of(service).chat.completions.create(**arguments)
    tokens = completion.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == text.rstrip(".")
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == text.rstrip(".")
    assert all(token.logprob <= 0 and math.isfinite(token.logprob) for token in tokens)


def test_n_returns_the_best_captions_and_the_extension_their_maps(service, text):
    arguments = {"model": "default", "messages": messages(service.data_url), "n": 3}
    completion = client_of(service).chat.completions.create(**arguments, extra_body={"sightline": {"map_size": "grid"}})
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert completion.choices[0].message.content == text
    assert len({choice.message.content for choice in completion.choices}) == 3
    native = completion.sightline["captions"]
    assert [caption["text"] for caption in native] == [choice.message.content for choice in completion.choices]
    assert len(native[0]["words"][0]["map"]["values"]) == 196


@pytest.mark.parametrize("count", [1, 2])
def test_a_stream_has_the_words_one_by_one(service, text, count):
    stream = client_of(service).chat.completions.create(
        model="default", messages=messages(service.data_url), stream=True, stream_options={"include_usage": True}, n=count
    )
    chunks = list(stream)
    first = [choice for chunk in chunks for choice in chunk.choices if choice.index == 0]
    assert first[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in first) == text
    assert len([choice for choice in first if choice.delta.content]) > 5
    assert [choice.finish_reason for choice in first if choice.finish_reason] == ["stop"]
    assert {choice.index for chunk in chunks for choice in chunk.choices} == set(range(count))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0


def test_a_stop_sequence_ends_the_text_in_both_forms(service, text):
    arguments = {"model": "default", "messages": messages(service.data_url), "stop": [" and"]}
    whole = client_of(service).chat.completions.create(**arguments)
    assert whole.choices[0].message.content == text.partition(" and")[0]
    stream = client_of(service).chat.completions.create(**arguments, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text.partition(" and")[0]


def test_a_response_is_the_caption(service, text):
    response = client_of(service).responses.create(model="default", input=inputs(service.data_url), metadata={"a": "b"})
    assert response.output_text == text
    assert response.status == "completed"
    assert response.usage.input_tokens == 196
    assert response.metadata == {"a": "b"}
    included = client_of(service).responses.create(
        model="default", input=inputs(service.data_url), include=["message.output_text.logprobs"]
    )
    assert "".join(token.token for token in included.output[0].content[0].logprobs) == text.rstrip(".")


def test_a_short_response_is_incomplete(service):
    response = client_of(service).responses.create(model="default", input=inputs(service.data_url), max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 3


def test_a_stream_of_a_response_is_parsed(service, text):
    with client_of(service).responses.stream(model="default", input=inputs(service.data_url)) as stream:
        kinds, deltas = [], []
        for event in stream:
            kinds.append(event.type)
            deltas += [event.delta] if event.type == "response.output_text.delta" else []
        final = stream.get_final_response()
    assert final.output_text == "".join(deltas) == text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_models_are_listed(service):
    client = client_of(service)
    assert [model.id for model in client.models.list()] == ["default"]
    assert client.models.retrieve("default").object == "model"


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_every_error_is_of_its_own_kind(service, secured, kind):
    import openai

    def call(where, url=None, model="default", key="any"):
        client = client_of(where, key)
        if kind == "chat":
            return client.chat.completions.create(model=model, messages=messages(url or where.data_url))
        return client.responses.create(model=model, input=inputs(url or where.data_url))

    with pytest.raises(openai.BadRequestError) as broken:
        call(service, BROKEN)
    assert broken.value.code == "image_parse_error"
    with pytest.raises(openai.BadRequestError) as no_image:
        call(service, "data:image/png;base64,bm8gaW1hZ2U=")
    assert no_image.value.code == "invalid_image_format"
    with pytest.raises(openai.NotFoundError) as unknown:
        call(service, model="gpt-4o")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as rejected:
        call(secured)
    assert rejected.value.code == "invalid_api_key"
    assert call(secured, key="a-key")
    with service.full(), pytest.raises(openai.InternalServerError) as overloaded:
        call(service)
    assert overloaded.value.status_code == 503
    assert overloaded.value.code == "overloaded"
    assert int(overloaded.value.response.headers["retry-after"]) >= 1


def test_an_error_inside_a_stream_is_raised(service):
    import openai

    with pytest.raises(openai.APIError, match="map_size"):
        list(
            client_of(service).chat.completions.create(
                model="default",
                messages=messages(service.data_url),
                stream=True,
                extra_body={"sightline": {"map_size": "512x512", "num_beams": 8, "num_return_sequences": 8}},
            )
        )


def test_an_overloaded_service_is_tried_again_by_the_client(service, text):
    import threading

    client = client_of(service).with_options(max_retries=5)
    full = service.full()
    full.__enter__()
    threading.Timer(0.3, full.__exit__, (None, None, None)).start()
    completion = client.chat.completions.create(model="default", messages=messages(service.data_url))
    assert completion.choices[0].message.content == text
