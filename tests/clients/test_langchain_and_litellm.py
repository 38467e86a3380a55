"""langchain-openai, and litellm through both of its ways: OpenAI and Ollama."""

from __future__ import annotations

import os

import pytest


def message(url: str) -> dict:
    parts = [{"type": "text", "text": "What is in this image?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


def chat_of(service, key="any", model="default"):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{service.url}/v1", api_key=key, model=model, max_retries=0)


def test_langchain_gets_and_streams_the_caption(service, text):
    chat = chat_of(service)
    answer = chat.invoke([message(service.data_url)])
    assert answer.content == text
    assert answer.usage_metadata["input_tokens"] == 196
    chunks = list(chat.stream([message(service.data_url)]))
    assert "".join(chunk.content for chunk in chunks) == text
    assert len(chunks) > 5
    assert chat.bind(logprobs=True).invoke([message(service.data_url)]).response_metadata["logprobs"]["content"]


def test_langchain_raises_the_errors_of_the_service(service, secured):
    import openai

    with pytest.raises(openai.BadRequestError):
        chat_of(service).invoke([message("data:image/png;base64,bm8=")])
    with pytest.raises(openai.NotFoundError):
        chat_of(service, model="none").invoke([message(service.data_url)])
    with pytest.raises(openai.AuthenticationError):
        chat_of(secured).invoke([message(service.data_url)])
    with service.full(), pytest.raises(openai.InternalServerError):
        chat_of(service).invoke([message(service.data_url)])


def complete(service, provider: str, url: str = "", model="default", **options):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of prices
    import litellm

    base = f"{service.url}/v1" if provider == "openai" else service.url
    arguments = {"model": f"{provider}/{model}", "api_base": base, "api_key": "any", "num_retries": 0, "max_retries": 0}
    return litellm.completion(messages=[message(url or service.data_url)], **arguments | options)


@pytest.mark.parametrize("provider", ["openai", "ollama", "ollama_chat"])
def test_litellm_gets_and_streams_the_caption(service, text, provider):
    assert complete(service, provider).choices[0].message.content == text
    chunks = list(complete(service, provider, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert len(chunks) > 5


def test_litellm_raises_the_errors_of_the_service(service, secured):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    with pytest.raises(litellm.BadRequestError):
        complete(service, "openai", "data:image/png;base64,bm8=")
    with pytest.raises(litellm.NotFoundError):
        complete(service, "openai", model="none")
    with pytest.raises(litellm.AuthenticationError):
        complete(secured, "openai")
    assert complete(secured, "openai", api_key="a-key")
    with service.full(), pytest.raises(litellm.ServiceUnavailableError):
        complete(service, "openai")
