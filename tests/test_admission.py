"""Who may come in: a full house refuses at once, with a time to come back; everything taken is given back."""

from __future__ import annotations

import threading
import time

import pytest
from fastapi.testclient import TestClient

from model import Captioner
from service import Settings, create_app
from service.runtime.admission import Admission, AdmissionLimits
from service.errors import ServiceError
from tests.conftest import problem


def test_a_full_house_refuses_and_says_when_to_come_back():
    admission = Admission(AdmissionLimits(3, 100, 100), lambda pictures: 10 * pictures)
    with admission.enter(2), admission.enter():
        with pytest.raises(ServiceError) as refused, admission.enter():
            pass
        assert refused.value.code == "overloaded"
        assert refused.value.headers == {"Retry-After": "30"}
        assert admission.used["pictures"] == 3, "a refused one holds nothing"
    assert admission.used["pictures"] == 0
    with admission.enter():
        pass


def test_one_request_always_finds_room_in_an_empty_house():
    admission = Admission(AdmissionLimits(96, 10, 100), lambda _: 1)
    with admission.enter() as place:
        place.take("body_bytes", 100)  # the body limit is another setting
        with admission.enter() as other, pytest.raises(ServiceError):
            other.take("body_bytes", 1)


def test_who_has_left_takes_nothing_any_more():
    admission = Admission(AdmissionLimits(96, 400_000_000, 96_000_000), lambda _: 1)
    with admission.enter() as place:
        pass
    with pytest.raises(ServiceError):
        place.take("pixels", 7)  # its decoder asks too late
    assert admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


def test_one_batch_alone_finds_room_whatever_its_size():
    admission = Admission(AdmissionLimits(20, 100, 100), lambda _: 1)
    with admission.enter() as place:
        place.take("pictures", 40)
        with pytest.raises(ServiceError), admission.enter():
            pass


def test_what_is_held_is_given_back_when_the_work_fails():
    admission = Admission(AdmissionLimits(96, 400_000_000, 96_000_000), lambda _: 1)

    def work():
        with admission.enter() as place:
            place.take("body_bytes", 5)
            place.take("pixels", 7)
            raise ValueError("work")

    with pytest.raises(ValueError, match="work"):
        work()
    assert admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


class Slow(Captioner):
    """Waits before it encodes."""

    def __init__(self, other: Captioner) -> None:
        self.__dict__.update(other.__dict__)
        self.go_on = threading.Event()
        self.entered = threading.Event()
        self.encoded = 0

    def encode(self, views):
        self.entered.set()
        self.go_on.wait(20)
        self.encoded += len(views)
        return super().encode(views)


def serving(slow, **settings):
    return TestClient(create_app({"tiny": slow}, Settings(**settings)), raise_server_exceptions=False)


def test_requests_beyond_the_queue_are_answered_503_over_http(tiny_captioner, picture):
    slow = Slow(tiny_captioner)
    answers = []
    with serving(slow, max_queue_images=2) as client:
        post = lambda: answers.append(client.post("/v1/captions", content=picture))  # noqa: E731
        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        slow.entered.wait(20)
        while client.app.state.engine.admission.used["pictures"] < 2:
            time.sleep(0.01)
        refused = client.post("/v1/captions", content=picture)
        problem(refused, "overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/readyz").status_code == 200, "to be busy is not to be unready"
        slow.go_on.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.app.state.engine.admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


def test_work_past_its_deadline_is_a_504_and_is_dropped(tiny_captioner, picture):
    slow = Slow(tiny_captioner)
    with serving(slow, deadline_seconds=0.5) as client:
        problem(client.post("/v1/captions", content=picture), "deadline_exceeded")
        slow.go_on.set()
        engine = client.app.state.engine
        for _ in range(100):
            if not engine.scheduler.num_unanswered and not engine.scheduler.running:
                break
            time.sleep(0.05)
        assert engine.scheduler.running == engine.scheduler.waiting == 0
        assert engine.admission.used["pictures"] == 0


def test_a_model_thread_that_ends_makes_the_service_unready(tiny_captioner, picture):
    class Dying(Slow):
        def encode(self, views):
            raise SystemExit("killed")

    called = []
    with serving(Dying(tiny_captioner)) as client:
        client.app.state.on_failure = lambda: called.append(True)
        answer = client.post("/v1/captions", content=picture)
        problem(answer, "not_ready")
        problem(client.get("/readyz"), "not_ready")
        problem(client.get("/livez"), "not_ready")
        problem(client.post("/v1/captions", content=picture), "not_ready")


def test_a_step_that_hangs_fails_what_was_accepted(tiny_captioner, picture):
    slow = Slow(tiny_captioner)
    with serving(slow, watchdog_seconds=0.4) as client:
        started = time.monotonic()
        problem(client.post("/v1/captions", content=picture), "not_ready")
        assert time.monotonic() - started < 10
        problem(client.get("/readyz"), "not_ready")
        slow.go_on.set()


def test_a_service_that_drains_is_unready_and_still_answers(tiny_captioner, picture):
    slow = Slow(tiny_captioner)
    slow.go_on.set()
    with serving(slow) as client:
        client.app.state.engine.draining = True
        problem(client.get("/readyz"), "draining")
        assert client.get("/livez").status_code == 200
        assert client.post("/v1/captions", content=picture).status_code == 200
