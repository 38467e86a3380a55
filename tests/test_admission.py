"""Admission: a full service refuses at once, with the time after which to come back; everything taken is given back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi.testclient import TestClient
from starlette.requests import Request

from model import Captioner
from service import Settings, create_app
from service.errors import ServiceError
from service.http.body import read_image, read_images
from service.runtime import Admission, AdmissionLimits
from tests.conftest import problem
from tests.helpers import paused, wait_until, watched

EMPTY = {"images": 0, "body_bytes": 0, "pixels": 0}
MEGABYTE = 1_000_000
SECONDS = 60  # after which a test has failed


def make_admission(
    images: int = 96,
    body_bytes: int = 400 * MEGABYTE,
    pixels: int = 96 * MEGABYTE,
    retry_after: Callable[[int], int] = lambda _: 1,
) -> Admission:
    return Admission(AdmissionLimits(images, body_bytes, pixels), retry_after)


def test_a_full_queue_refuses_and_says_when_to_come_back():
    admission = make_admission(images=3, retry_after=lambda images: 10 * images)
    with admission.open() as batch, admission.open() as single, admission.open() as late:
        batch.take("images", 2)
        single.take("images", 1)
        with pytest.raises(ServiceError) as refused, admission.open():
            pass
        assert refused.value.code == "overloaded"
        assert refused.value.headers == {"Retry-After": "30"}
        with pytest.raises(ServiceError):  # it was opened before the queue was full
            late.take("images", 1)
        assert admission.used["images"] == 3, "a refused request takes nothing"
    assert admission.used == EMPTY
    with admission.open() as ticket:
        ticket.take("images", 1)


def test_a_request_that_is_alone_is_admitted_whatever_its_size():
    admission = make_admission(images=20, body_bytes=10)
    with admission.open("a") as ticket, admission.open("b") as other:
        ticket.take("body_bytes", 100)  # the limit of one body is another setting
        ticket.take("images", 40)
        for kind in ("body_bytes", "images"):
            with pytest.raises(ServiceError):
                other.take(kind, 1)
        with pytest.raises(ServiceError), admission.open("c"):
            pass


def test_a_request_that_has_ended_takes_nothing():
    admission = make_admission()
    with admission.open() as ticket:
        pass
    with pytest.raises(ServiceError):
        ticket.take("pixels", 7)  # its image worker asks too late
    assert admission.used == EMPTY


def test_reserved_memory_is_released_when_the_work_fails():
    admission = make_admission()

    def work() -> None:
        with admission.open() as ticket:
            for kind in EMPTY:
                ticket.take(kind, 5)
            raise ValueError("work")

    with pytest.raises(ValueError, match="work"):
        work()
    assert admission.used == EMPTY


def test_clients_that_announce_20_megabytes_and_send_nothing_take_nothing():
    """An announced length is not charged: their tickets are open, and another client gets all that there is."""
    admission = make_admission(images=1, body_bytes=20 * MEGABYTE)
    with contextlib.ExitStack() as silent, admission.open("a") as ticket:
        for number in range(20):
            silent.enter_context(admission.open(f"silent {number}"))
        assert admission.used == EMPTY
        ticket.take("body_bytes", 20 * MEGABYTE)
        ticket.take("images", 1)
    assert admission.used == EMPTY


def test_the_bodies_of_one_client_take_half_of_the_byte_limit_and_another_gets_in():
    admission = make_admission(body_bytes=100)
    with admission.open("a") as first, admission.open("a") as second, admission.open("b") as other:
        first.take("body_bytes", 40)
        second.take("body_bytes", 10)
        for ticket in (first, second):
            with pytest.raises(ServiceError) as refused:
                ticket.take("body_bytes", 1)
            assert refused.value.code == "overloaded"
        other.take("body_bytes", 50)
        assert admission.used["body_bytes"] == 100
        first.give_back("body_bytes")
        second.take("body_bytes", 40)
    assert admission.used == EMPTY


def read(reader, request_body: bytes, content_type: str) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Read a body that arrives in two halves; returns what is in use before each half, and at the end."""
    admission, before = make_admission(), []
    half = len(request_body) // 2

    async def receive() -> dict:
        before.append(admission.used)
        is_first = len(before) == 1
        return {"type": "http.request", "body": request_body[:half] if is_first else request_body[half:], "more_body": is_first}

    async def run() -> dict[str, int]:
        headers = {"content-length": str(len(request_body)), "content-type": content_type}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
        with admission.open("a") as ticket:
            await reader(Request(scope, receive), Settings(), ticket)
            return admission.used

    return before, asyncio.run(run())


def test_bytes_are_counted_as_they_arrive_and_images_when_the_body_is_complete(image_bytes):
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image_bytes + b"\r\n" for _ in range(3)
    )
    for reader, body, kind, num_images in (
        (read_image, image_bytes, "image/jpeg", 1),
        (read_images, form + b"--x--\r\n", "multipart/form-data; boundary=x", 3),
    ):
        before, after = read(reader, body, kind)
        assert before == [EMPTY, EMPTY | {"body_bytes": len(body) // 2}]
        assert after == EMPTY | {"body_bytes": len(body), "images": num_images}


def raising(captioner: Captioner, error: BaseException) -> Captioner:
    """Return a captioner whose encoder calls fail."""
    other, runtime = watched(captioner)

    def fail(_: torch.Tensor) -> None:
        raise error

    runtime.before_encode = fail
    return other


def serving(captioner: Captioner, **settings) -> TestClient:
    return TestClient(create_app({"tiny": captioner}, Settings(**settings)), raise_server_exceptions=False)


def test_requests_beyond_the_queue_are_answered_503_over_http(tiny_captioner, image_bytes):
    captioner, hook = paused(tiny_captioner)
    with serving(captioner, max_queue_images=2) as client, ThreadPoolExecutor(2) as threads:
        accepted = [threads.submit(client.post, "/v1/captions", content=image_bytes) for _ in range(2)]
        assert hook.entered.wait(SECONDS)
        wait_until(lambda: client.app.state.engine.admission.used["images"] == 2)
        refused = client.post("/v1/captions", content=image_bytes)
        problem(refused, "overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/readyz").status_code == 200, "an overloaded service is ready"
        hook.go_on.set()
        assert [response.result(SECONDS).status_code for response in accepted] == [200, 200]
        assert client.app.state.engine.admission.used == EMPTY


def test_work_past_its_deadline_is_answered_504_and_dropped(tiny_captioner, image_bytes):
    captioner, hook = paused(tiny_captioner)
    with serving(captioner, deadline_seconds=0.5) as client:
        problem(client.post("/v1/captions", content=image_bytes), "deadline_exceeded")
        hook.go_on.set()
        scheduler = client.app.state.engine.scheduler
        wait_until(lambda: scheduler.num_unanswered == scheduler.num_active == scheduler.num_waiting == 0)
        assert client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/batch"])
def test_a_request_past_its_deadline_takes_no_pixels_afterwards(tiny_captioner, image_bytes, path):
    """The image worker answers, with the image's size, after the request has ended."""
    with serving(tiny_captioner, deadline_seconds=0.5, image_workers=1, image_decode_seconds=30) as client:
        engine = client.app.state.engine
        pid = engine.workers.processes[0].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            problem(client.post(path, files=[("image", ("a.jpg", image_bytes))]), "deadline_exceeded")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: engine.workers.processes)
        assert engine.admission.used == EMPTY


def test_a_lack_of_device_memory_for_one_image_is_answered_503(tiny_captioner, image_bytes):
    with serving(raising(tiny_captioner, torch.OutOfMemoryError("CUDA out of memory"))) as client:
        response = client.post("/v1/captions", content=image_bytes)
        problem(response, "overloaded")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert client.get("/readyz").status_code == 200


def test_a_model_thread_that_dies_makes_the_service_unready(tiny_captioner, image_bytes):
    failures = []
    client = serving(raising(tiny_captioner, SystemExit("killed")))
    client.app.state.on_failure = lambda: failures.append(True)
    with client:
        problem(client.post("/v1/captions", content=image_bytes), "not_ready")
        problem(client.get("/readyz"), "not_ready")
        problem(client.get("/livez"), "not_ready")
        problem(client.post("/v1/captions", content=image_bytes), "not_ready")
        wait_until(lambda: failures == [True])


def test_a_model_thread_that_hangs_fails_what_was_accepted(tiny_captioner, image_bytes):
    captioner, hook = paused(tiny_captioner)
    with serving(captioner, watchdog_seconds=0.4) as client:
        problem(client.post("/v1/captions", content=image_bytes), "not_ready")
        problem(client.get("/readyz"), "not_ready")
        assert not hook.go_on.is_set(), "the call of the network has not returned"
        hook.go_on.set()


def test_a_service_that_drains_is_unready_and_still_answers(tiny_captioner, image_bytes):
    with serving(tiny_captioner) as client:
        client.app.state.engine.is_draining = True
        problem(client.get("/readyz"), "draining")
        assert client.get("/livez").status_code == 200
        assert client.post("/v1/captions", content=image_bytes).status_code == 200
