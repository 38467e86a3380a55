"""The forms of an answer: events while words are found, contact sheets, reports."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service import Settings, create_app
from tests.helpers import failing
from tests.conftest import problem

EVENTS, PNG, HTML = ({"accept": kind} for kind in ("text/event-stream", "image/png", "text/html"))


def read_events(text: str) -> list[tuple[str, dict]]:
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


SEARCHES = [
    {"strategy": "greedy"},
    {"num_beams": 3},
    {"strategy": "sample", "seed": 3},
    {"strategy": "sample", "num_return_sequences": 2, "min_words": 2},
    {"prompt": "a brown"},
]


@pytest.mark.parametrize("options", SEARCHES)
def test_events_tell_each_word_once_and_end_with_the_whole_answer(client, picture, options):
    answer = client.post("/v1/captions", content=picture, params=options, headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, start), *words, (last, whole) = read_events(answer.text)
    assert (first, last) == ("start", "caption")
    assert {name for name, _ in words} == {"word"}
    assert [word["index"] for _, word in words] == list(range(len(words)))
    assert start["id"] == whole["id"]
    assert (start["image"], start["grid"], start["model"]) == (whole["image"], whole["grid"], whole["model"])
    final = whole["captions"][0]["words"]
    assert [word["text"] for _, word in words] == [word["text"] for word in final]
    for (_, told), word in zip(words, final, strict=True):
        assert told["log_probability"] == pytest.approx(word["log_probability"], abs=1e-4)
        assert told["map"]["values"] == pytest.approx(word["map"]["values"], abs=1e-4)
    single = client.post("/v1/captions", content=picture, params=options).json()
    assert [caption["text"] for caption in whole["captions"]] == [caption["text"] for caption in single["captions"]]


def test_what_is_wrong_before_the_first_event_has_its_status(client, picture):
    problem(client.post("/v1/captions", content=b"no picture", headers=EVENTS), "unsupported_image_format")
    problem(client.post("/v1/captions", content=picture, params={"num_beams": 99}, headers=EVENTS), "invalid_option")
    events = read_events(client.post("/v1/captions", content=picture, params={"prompt": "a " * 200}, headers=EVENTS).text)
    assert [name for name, _ in events] == ["start", "error"]
    assert events[-1][1]["code"] == "invalid_option"
    assert client.app.state.engine.admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


def test_a_failure_while_words_are_told_is_an_event(tiny_captioner, picture):
    with TestClient(
        create_app({"tiny": failing(tiny_captioner, SystemExit("killed"))}, Settings()), raise_server_exceptions=False
    ) as client:
        events = read_events(client.post("/v1/captions", content=picture, headers=EVENTS).text)
        assert [name for name, _ in events] == ["start", "error"]
        assert events[-1][1]["code"] == "not_ready"
        assert client.app.state.engine.admission.used["pictures"] == 0


def test_a_bug_while_words_are_told_is_an_event_and_gives_nothing_away(tiny_captioner, picture):
    with TestClient(
        create_app({"tiny": failing(tiny_captioner, RuntimeError("secret"))}, Settings()), raise_server_exceptions=False
    ) as client:
        text = client.post("/v1/captions", content=picture, headers=EVENTS).text
        assert [name for name, _ in read_events(text)] == ["start", "error"]
        assert read_events(text)[-1][1]["code"] == "internal"
        assert "secret" not in text


def test_maps_too_large_to_tell_are_refused_among_events_too(client, picture, monkeypatch):
    monkeypatch.setattr("service.stream.MAX_MAP_VALUES", 300)
    options = {"map_size": "10x20", "prompt": "a brown dog"}
    events = read_events(client.post("/v1/captions", content=picture, params=options, headers=EVENTS).text)
    assert [name for name, _ in events] == ["start", "word", "error"]
    assert "map_size" in events[-1][1]["detail"]


def test_a_contact_sheet_shows_the_photograph_and_every_word(client, photo):
    for size in ((64, 48), (700, 300), (40, 400)):
        answer = client.post("/v1/captions", content=photo(*size), headers=PNG, params={"max_words": 4})
        assert answer.headers["content-type"] == "image/png"
        sheet = Image.open(io.BytesIO(answer.content))
        assert sheet.format == "PNG"
        assert sheet.width > 220
        assert len(sheet.getcolors(1 << 24) or []) > 500, "photograph and overlays are there"


def test_a_report_holds_everything_and_escapes_what_people_wrote(client, picture):
    answer = client.post(
        "/v1/captions", content=picture, headers=HTML, params={"num_beams": 2, "num_return_sequences": 2, "prompt": "a <b>dog</b>"}
    )
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert "a &lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is fetched from elsewhere"
    whole = client.post("/v1/captions", content=picture, params={"num_beams": 2, "num_return_sequences": 2, "prompt": "a <b>dog</b>"}).json()
    words = sum(len(caption["words"]) for caption in whole["captions"])
    assert page.count("data:image/jpeg;base64,") == words + 1


def test_the_form_that_is_wanted_most_is_given(client, picture):
    accept = "text/html;q=0.8, image/png;q=0.9, application/json;q=0.1"
    assert client.post("/v1/captions", content=picture, headers={"accept": accept}).headers["content-type"] == "image/png"
    problem(client.post("/v1/captions", content=picture, headers={"accept": "image/jpeg"}), "not_acceptable")


def test_events_end_at_the_deadline_whatever_they_have_told(tiny_captioner, picture, monkeypatch):
    from service import stream

    original = stream.word_json
    monkeypatch.setattr(stream, "word_json", lambda *given: (time.sleep(0.4), original(*given))[1])
    app = create_app({"tiny": tiny_captioner}, Settings(deadline_seconds=0.7))
    with TestClient(app, raise_server_exceptions=False) as client:
        params = {"prompt": "a brown dog runs on the grass", "strategy": "sample", "num_return_sequences": "2"}  # all told at the end
        events = read_events(client.post("/v1/captions", content=picture, params=params, headers=EVENTS).text)
        assert [name for name, _ in events][-1] == "error"
        assert events[-1][1]["code"] == "deadline_exceeded"
        assert sum(name == "word" for name, _ in events) <= 3
        assert client.app.state.engine.admission.used["pictures"] == 0
