"""Types of responses other than JSON: events that stream words, contact sheets, pages."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service import Settings, create_app
from tests.conftest import problem
from tests.helpers import failing, wait_until, watched

EVENTS, PNG, HTML = ({"accept": media_type} for media_type in ("text/event-stream", "image/png", "text/html"))

OPTIONS = [
    {"strategy": "greedy"},
    {"num_beams": 3},
    {"strategy": "sample", "seed": 3},
    {"strategy": "sample", "num_return_sequences": 2, "min_words": 2},
    {"prompt": "a brown"},
]


def parse_events(text: str) -> list[tuple[str, dict]]:
    """Return the name and data of every event."""
    events = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


@pytest.mark.parametrize("options", OPTIONS)
def test_events_have_each_word_once_and_end_with_the_complete_response(client, image_bytes, options):
    response = client.post("/v1/captions", content=image_bytes, params=options, headers=EVENTS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    (first, start), *words, (last, complete) = parse_events(response.text)
    assert (first, last) == ("start", "caption")
    assert {name for name, _ in words} == {"word"}
    assert [word["index"] for _, word in words] == list(range(len(words)))
    assert start["id"] == complete["id"]
    assert (start["image"], start["grid"], start["model"]) == (complete["image"], complete["grid"], complete["model"])
    final = complete["captions"][0]["words"]
    assert [word["text"] for _, word in words] == [word["text"] for word in final]
    for (_, streamed), word in zip(words, final, strict=True):
        assert streamed["log_probability"] == pytest.approx(word["log_probability"], abs=1e-4)
        assert streamed["map"]["values"] == pytest.approx(word["map"]["values"], abs=1e-4)
    single = client.post("/v1/captions", content=image_bytes, params=options).json()
    assert [caption["text"] for caption in complete["captions"]] == [caption["text"] for caption in single["captions"]]


def test_an_error_before_the_first_event_has_its_status_and_a_later_one_is_an_event(client, image_bytes):
    problem(client.post("/v1/captions", content=b"no image", headers=EVENTS), "unsupported_image_format")
    problem(client.post("/v1/captions", content=image_bytes, params={"num_beams": 99}, headers=EVENTS), "invalid_option")
    events = parse_events(client.post("/v1/captions", content=image_bytes, params={"prompt": "a " * 200}, headers=EVENTS).text)
    assert [name for name, _ in events] == ["start", "error"]
    assert events[-1][1]["code"] == "invalid_option"
    assert client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


def test_a_failure_of_the_model_thread_while_words_are_streamed_is_an_event(tiny_captioner, image_bytes):
    app = create_app({"tiny": failing(tiny_captioner, SystemExit("killed"))}, Settings())
    with TestClient(app, raise_server_exceptions=False) as client:
        events = parse_events(client.post("/v1/captions", content=image_bytes, headers=EVENTS).text)
        assert [name for name, _ in events] == ["start", "error"]
        assert events[-1][1]["code"] == "not_ready"
        assert app.state.engine.admission.used["images"] == 0


def test_a_bug_while_words_are_streamed_is_an_event_that_reveals_nothing(tiny_captioner, image_bytes):
    app = create_app({"tiny": failing(tiny_captioner, RuntimeError("secret"))}, Settings())
    with TestClient(app, raise_server_exceptions=False) as client:
        text = client.post("/v1/captions", content=image_bytes, headers=EVENTS).text
        assert [name for name, _ in parse_events(text)] == ["start", "error"]
        assert parse_events(text)[-1][1]["code"] == "internal"
        assert "secret" not in text


def test_maps_that_are_too_large_together_end_the_events_with_an_error(client, image_bytes, monkeypatch):
    monkeypatch.setattr("service.http.dialects.native.events.MAX_MAP_VALUES", 300)
    options = {"map_size": "10x20", "prompt": "a brown dog"}
    events = parse_events(client.post("/v1/captions", content=image_bytes, params=options, headers=EVENTS).text)
    assert [name for name, _ in events] == ["start", "word", "error"]
    assert "map_size" in events[-1][1]["detail"]


def test_a_contact_sheet_shows_the_image_and_every_word(client, photo):
    for size in ((64, 48), (700, 300), (40, 400)):
        response = client.post("/v1/captions", content=photo(*size), headers=PNG, params={"max_words": 4})
        assert response.headers["content-type"] == "image/png"
        sheet = Image.open(io.BytesIO(response.content))
        assert sheet.format == "PNG"
        assert sheet.width > 220
        assert len(sheet.getcolors(1 << 24) or []) > 500, "the image and the overlays have many colors"


def test_a_page_shows_every_word_and_escapes_text_of_users(client, image_bytes):
    options = {"num_beams": 2, "num_return_sequences": 2, "prompt": "a <b>dog</b>"}
    response = client.post("/v1/captions", content=image_bytes, headers=HTML, params=options)
    assert response.headers["content-type"].startswith("text/html")
    page = response.text
    assert "a &lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is loaded from elsewhere"
    captions = client.post("/v1/captions", content=image_bytes, params=options).json()["captions"]
    num_words = sum(len(caption["words"]) for caption in captions)
    assert page.count("data:image/jpeg;base64,") == num_words + 1


def test_the_response_has_the_accepted_type_of_the_highest_weight(client, image_bytes):
    accept = "text/html;q=0.8, image/png;q=0.9, application/json;q=0.1"
    assert client.post("/v1/captions", content=image_bytes, headers={"accept": accept}).headers["content-type"] == "image/png"
    problem(client.post("/v1/captions", content=image_bytes, headers={"accept": "image/jpeg"}), "not_acceptable")


def test_events_end_with_an_error_at_the_deadline_however_many_words_are_left(tiny_captioner, image_bytes):
    deadline = 1.0
    captioner, runtime = watched(tiny_captioner)
    app = create_app({"tiny": captioner}, Settings(deadline_seconds=deadline))
    writers = threading.Event()  # set: may continue
    # Words of two samples are all sent at the end.
    params = {"prompt": "a brown dog runs on the grass", "strategy": "sample", "num_return_sequences": "2"}
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(1) as pool:
        engine = app.state.engine
        for _ in range(2):  # all writer threads are busy
            engine.writers.submit(writers.wait, 30)
        try:
            request = pool.submit(client.post, "/v1/captions", content=image_bytes, params=params, headers=EVENTS)
            wait_until(lambda: runtime.encoded and engine.scheduler.num_unanswered == 0)
            captioned = time.monotonic()
            wait_until(lambda: time.monotonic() > captioned + deadline)
        finally:
            writers.set()
        events = parse_events(request.result(30).text)
        assert events[0][0] == "start"
        assert events[-1][0] == "error"
        assert events[-1][1]["code"] == "deadline_exceeded"
        assert sum(name == "word" for name, _ in events) <= 1, "only the one that was being written"
        wait_until(lambda: engine.admission.used["images"] == 0)
