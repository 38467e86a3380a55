"""Images, steps and the model thread that fail: other images are answered, and memory is released."""

from __future__ import annotations

import logging
import threading
import weakref

import pytest
import torch

from model import CaptionRequest, TextError
from service.runtime import Job, Unserved
from tests.helpers import wait_until, watched
from tests.scheduling import (
    MIXED,
    NO_MEMORY,
    SECONDS,
    assert_as_alone,
    jobs_of,
    make_job,
    raise_for,
)


@pytest.mark.parametrize("error", [RuntimeError("this image"), NO_MEMORY], ids=["bug", "out of memory"])
def test_an_image_that_fails_fails_alone_and_the_thread_lives_on(start_scheduler, tiny_captioner, views, error):
    captioner, runtime = watched(tiny_captioner)
    runtime.before_encode = raise_for(views[1], error)
    jobs = [*jobs_of(captioner, views), make_job(captioner, views[0], prompt="a " * 200)]
    scheduler = start_scheduler()
    scheduler.submit(*jobs)
    with pytest.raises(type(error), match=str(error)):
        jobs[1].future.result(SECONDS)
    with pytest.raises(TextError, match="has room for"):
        jobs[3].future.result(SECONDS)
    assert_as_alone(tiny_captioner, [jobs[0], jobs[2]])
    assert scheduler.error is None
    scheduler.submit(later := make_job(captioner, views[2]))
    assert_as_alone(tiny_captioner, [later])


@pytest.mark.parametrize("error", [RuntimeError("together they fail"), NO_MEMORY], ids=["bug", "out of memory"])
def test_a_step_that_fails_is_repeated_image_by_image(start_scheduler, tiny_captioner, views, error):
    captioner, runtime = watched(tiny_captioner)
    steps: list[int] = []  # rows per step

    def fail_for_several(tokens: torch.Tensor, weights: bool) -> None:
        if weights or tokens.size(1) > 1:  # a scoring pass
            return
        steps.append(tokens.size(0))
        if len(steps) > 2 and tokens.size(0) > 3:  # more rows than one image has
            raise error

    runtime.before_decode = fail_for_several
    scheduler = start_scheduler()
    jobs = [Job(captioner, CaptionRequest(view=view, options=options), object()) for view in views for options in MIXED[:3]]
    scheduler.submit(*jobs)
    assert_as_alone(tiny_captioner, jobs)
    assert max(steps[2:]) > 3
    assert scheduler.error is None


def test_a_lack_of_device_memory_costs_smaller_encoder_calls_and_no_image(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)

    def fail_for_more_than_two(pixels: torch.Tensor) -> None:
        if pixels.size(0) > 2:
            raise NO_MEMORY

    runtime.before_encode = fail_for_more_than_two
    scheduler = start_scheduler(encode_batch_size_idle=6)
    scheduler.submit(*(jobs := jobs_of(captioner, views * 2)))
    assert_as_alone(tiny_captioner, jobs)
    assert runtime.encoded == [6, 3, 1, 2, 3, 1, 2], "halves, until they fit"
    assert scheduler.error is None


def test_the_memory_of_a_failed_computation_is_free_before_it_is_repeated(start_scheduler, tiny_captioner, views, caplog):
    caplog.set_level(logging.CRITICAL, "service.runtime.scheduler")  # pytest keeps what is logged, tracebacks included
    captioner, runtime = watched(tiny_captioner)
    failed: list[weakref.ref[torch.Tensor]] = []

    def fail_for_several_images(values: torch.Tensor, weights: bool | None = None) -> None:
        assert not any(reference() is not None for reference in failed), "a failed computation still has its tensors"
        if values.size(0) > (1 if weights is None else 3):  # to encode, or rows of an image to decode
            failed.append(weakref.ref(values))
            raise torch.OutOfMemoryError("CUDA out of memory")

    runtime.before_encode = fail_for_several_images
    assert len(captioner.caption(views)) == len(views)
    scheduler = start_scheduler(encode_batch_size_idle=len(views))
    scheduler.submit(*(jobs := jobs_of(captioner, views)))
    assert_as_alone(tiny_captioner, jobs)
    assert len(failed) >= 4, "halves, until one image is left"
    failed.clear()

    runtime.before_encode = lambda pixels: None
    runtime.before_decode = fail_for_several_images
    scheduler.submit(*(jobs := jobs_of(captioner, views)))
    assert_as_alone(tiny_captioner, jobs)
    assert failed, "a step of several rows"


def test_when_the_thread_dies_every_job_fails(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)

    def die(_: torch.Tensor) -> None:
        raise SystemExit("killed")

    runtime.before_encode = die
    scheduler = start_scheduler(encode_batch_size_idle=1)
    scheduler.submit(*(jobs := jobs_of(captioner, views)))
    for job in jobs:
        with pytest.raises(Unserved):
            job.future.result(SECONDS)
    assert isinstance(scheduler.error, SystemExit)
    with pytest.raises(Unserved):
        scheduler.submit(make_job(captioner, views[0]))


def test_a_thread_that_hangs_is_noticed_and_an_idle_one_is_not(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    go_on = threading.Event()
    scheduler = start_scheduler()
    assert scheduler.seconds_since_progress() == 0, "nothing to do yet"
    scheduler.submit(first := make_job(captioner, views[0]))
    first.future.result(SECONDS)
    wait_until(lambda: scheduler.seconds_since_progress() == 0)
    runtime.before_encode = lambda _: go_on.wait(SECONDS)
    job = make_job(captioner, views[0])
    scheduler.submit(job)
    wait_until(lambda: scheduler.seconds_since_progress() > 0.1)
    scheduler.fail_all(TimeoutError("no progress"))
    with pytest.raises(Unserved):
        job.future.result(SECONDS)
    go_on.set()


def rescores_of(runtime, each):
    """Call `each` with the number of every pass that occlusion maps need beside the scoring pass."""
    numbers: list[int] = []

    def count(tokens: torch.Tensor, weights: bool) -> None:
        if not weights and tokens.size(1) > 1 and runtime.has_scored:
            numbers.append(len(numbers))
            each(numbers[-1])
        runtime.has_scored = runtime.has_scored or weights

    runtime.has_scored = False
    runtime.before_decode = count
    return numbers


def test_a_map_of_many_calls_of_the_network_makes_progress_between_them(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    scheduler = start_scheduler()
    times: list[float] = []
    rescores_of(runtime, lambda _: times.append(scheduler._last_progress))
    request = CaptionRequest(view=views[0], options=MIXED[0], maps="occlusion", reliance=False)
    scheduler.submit(job := Job(captioner, request, object()))
    assert job.future.result(SECONDS).captions
    assert len(times) > captioner.grid.num_patches
    assert len(set(times)) >= captioner.grid.num_patches, "the watchdog sees each pass"


def test_a_map_of_many_calls_ends_when_its_client_leaves(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    scheduler = start_scheduler()
    request = CaptionRequest(view=views[0], options=MIXED[0], maps="occlusion", reliance=False)
    job = Job(captioner, request, object())
    numbers = rescores_of(runtime, lambda number: job.future.cancel() if number == 3 else None)
    scheduler.submit(job)
    wait_until(lambda: job.future.cancelled() and not scheduler.num_active, SECONDS)
    assert len(numbers) <= 5 < captioner.grid.num_patches
    runtime.before_decode = lambda *_: None
    scheduler.submit(later := make_job(captioner, views[1]))
    assert_as_alone(tiny_captioner, [later])
    assert scheduler.error is None
