"""The compatible APIs as tests use them: for each a request with an image, where its caption is, and the shape of its errors."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient

from service import Settings, create_app


def data_url(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def plain(image: bytes) -> str:
    return base64.b64encode(image).decode()


def chat(image: bytes, model: str, text: str = "Describe this image") -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": data_url(image)}}]
    return {"json": {"model": model, "messages": [{"role": "user", "content": parts}]}}


def responses(image: bytes, model: str, text: str = "Describe this image") -> dict[str, Any]:
    parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": data_url(image)}]
    return {"json": {"model": model, "instructions": text, "input": [{"role": "user", "content": parts}]}}


def generate(image: bytes, model: str, text: str = "Describe this image") -> dict[str, Any]:
    return {"json": {"model": model, "prompt": text, "system": text, "images": [plain(image)], "stream": False}}


def ollama_chat(image: bytes, model: str, text: str = "Describe this image") -> dict[str, Any]:
    messages = [{"role": "user", "content": text, "images": [plain(image)]}]
    return {"json": {"model": model, "messages": messages, "stream": False}}


def infer(image: bytes, model: str, text: str = "") -> dict[str, Any]:
    return {"json": {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [plain(image)]}]}}


def analyze(image: bytes, model: str, text: str = "") -> dict[str, Any]:
    query = {"api-version": "2023-10-01", "features": "caption"} | ({} if model == "tiny" else {"model-name": model})
    return {"content": image, "params": query, "headers": {"content-type": "application/octet-stream"}}


def infer_caption(body: Any) -> str:
    return next(output["data"][0] for output in body["outputs"] if output["name"] == "caption")


@dataclass(frozen=True)
class Api:
    """A compatible API; {model} in its path is the model."""

    path: str
    request: Callable[..., dict[str, Any]]  # image, model, text
    caption: Callable[[Any], str]
    message: Callable[[Any], str]  # of an error
    is_busy_429: bool = False  # overload is a 429, not a 503
    has_model: bool = True


APIS = {
    "chat": Api("/v1/chat/completions", chat, lambda body: body["choices"][0]["message"]["content"],
                lambda body: body["error"]["message"]),
    "responses": Api("/v1/responses", responses, lambda body: body["output"][0]["content"][0]["text"],
                     lambda body: body["error"]["message"]),
    "generate": Api("/api/generate", generate, lambda body: body["response"], lambda body: body["error"]),
    "ollama chat": Api("/api/chat", ollama_chat, lambda body: body["message"]["content"], lambda body: body["error"]),
    "hugging face": Api("/models/{model}", lambda image, model, text="": {"content": image},
                        lambda body: body[0]["generated_text"], lambda body: body["error"], is_busy_429=True),
    "azure": Api("/computervision/imageanalysis:analyze", analyze, lambda body: body["captionResult"]["text"],
                 lambda body: body["error"]["message"]),
    "open inference": Api("/v2/models/{model}/infer", infer, infer_caption, lambda body: body["error"]),
    "max": Api("/model/predict", lambda image, model, text="": {"files": {"image": ("a.jpg", image, "image/jpeg")}},
               lambda body: body["predictions"][0]["caption"], lambda body: body["message"], has_model=False),
    "moondream": Api("/v1/caption", lambda image, model, text="": {"json": {"model": model, "image_url": data_url(image)}},
                     lambda body: body["caption"], lambda body: body["error"]["message"]),
    "cog": Api("/predictions",
               lambda image, model, text="": {"json": {"version": model, "input": {"image": data_url(image), "text": text}}},
               lambda body: body["output"], lambda body: body["detail"]),
    "replicate": Api("/v1/models/any/{model}/predictions",
                     lambda image, model, text="": {"json": {"input": {"image": data_url(image), "prompt_text": text}}},
                     lambda body: body["output"], lambda body: body["detail"]),
}  # fmt: skip


def send(client: Any, name: str, image: bytes, model: str = "tiny", text: str = "Describe this image", **options: Any) -> Any:
    """Send an image to an API; `options` are httpx's, such as headers."""
    api = APIS[name]
    arguments = api.request(image, model, text)
    headers = {**arguments.pop("headers", {}), **options.pop("headers", {})}
    return client.post(api.path.format(model=model), headers=headers, **arguments, **options)


def lines_of_events(text: str) -> Iterable[Any]:
    """Return the JSON of every data line."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]


MCP_HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}


@contextlib.contextmanager
def serving(captioner, **settings):
    app = create_app({"tiny": captioner}, Settings(**settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def check_error(response, name: str, status: int) -> str:
    """Check an error's status and shape, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] in ("application/json", "application/problem+json")
    assert response.headers["x-request-id"]
    message = APIS[name].message(response.json())
    assert isinstance(message, str)
    assert message
    return message


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
