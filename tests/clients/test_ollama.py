"""The package ollama."""

from __future__ import annotations

import pytest


@pytest.fixture
def client(service):
    import ollama

    return ollama.Client(host=service.url)


@pytest.mark.parametrize("model", ["default", "default:latest"])
def test_generate_is_the_caption_with_its_figures(client, service, text, model):
    response = client.generate(model=model, prompt="Describe this image", images=[service.scene])
    assert response.response == text
    assert response.done
    assert response.done_reason == "stop"
    assert response.total_duration >= response.eval_duration > 0
    assert response.prompt_eval_count == 196
    assert response.eval_count > len(text.split())


def test_generate_streams_by_default_and_chat_does(client, service, text):
    parts = list(client.generate(model="default", prompt="x", images=[service.scene], stream=True))
    assert "".join(part.response for part in parts) == text
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 5
    message = {"role": "user", "content": "What is this?", "images": [service.scene]}
    chunks = list(client.chat(model="default", messages=[message], stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == text
    assert chunks[-1].eval_count > 0


def test_a_chat_uses_the_last_image(client, service, text):
    history = [
        {"role": "user", "content": "first", "images": [service.scene]},
        {"role": "assistant", "content": "A caption."},
        {"role": "user", "content": "and now?"},
    ]
    assert client.chat(model="default", messages=history).message.content == text


def test_logprobs_make_up_the_text(client, service, text):
    response = client.generate(model="default", images=[service.scene], logprobs=True)
    assert "".join(entry.token for entry in response.logprobs) == text.rstrip(".")


def test_options_have_an_effect(client, service, text):
    sampled = {"temperature": 1.5, "seed": 3}
    one, same = (client.generate(model="default", images=[service.scene], options=sampled).response for _ in range(2))
    assert one == same
    others = {client.generate(model="default", images=[service.scene], options={"temperature": 1.5, "seed": n}).response
              for n in range(4)}  # fmt: skip
    assert len(others) > 1
    short = client.generate(model="default", images=[service.scene], options={"num_predict": 3, "temperature": 0})
    assert short.done_reason == "length"
    assert short.eval_count == 3
    stopped = client.generate(model="default", images=[service.scene], options={"stop": [" and"]})
    assert stopped.response == text.partition(" and")[0]


def test_models_are_listed_shown_and_loaded(client):
    [model] = client.list().models
    assert model.model == "default:latest"
    assert model.details.family == "sightline"
    assert "vision" in client.show("default").capabilities
    assert [running.name for running in client.ps().models] == ["default:latest"]
    assert client.generate(model="default").done_reason == "load"


def test_every_error_is_of_its_own_kind(client, service, secured):
    import ollama

    def status(call) -> tuple[int, str]:
        with pytest.raises(ollama.ResponseError) as raised:
            call()
        return raised.value.status_code, raised.value.error

    assert status(lambda: client.generate(model="default", images=[b"no image"]))[0] == 400
    code, message = status(lambda: client.generate(model="llava", images=[service.scene]))
    assert code == 404
    assert "llava" in message
    assert status(lambda: client.generate(model="default", prompt="Tell me a joke"))[0] == 400
    assert status(lambda: client.generate(model="default", images=[service.scene], format="json"))[0] == 400
    with service.full():
        assert status(lambda: client.generate(model="default", images=[service.scene]))[0] == 503
    locked = ollama.Client(host=secured.url)
    assert status(lambda: locked.generate(model="default", images=[service.scene]))[0] == 401
    opened = ollama.Client(host=secured.url, headers={"Authorization": "Bearer a-key"})
    assert opened.generate(model="default", images=[service.scene]).response
