"""The model thread: whatever joins, leaves or fails, every image gets the captions that it gets alone."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Hashable

import pytest
import torch

from model import Captioner, CaptionRequest, GenerationOptions, ImageView, TextError
from service.runtime import Job, Scheduler, SchedulerLimits, Unserved
from service.runtime.rate import Rate
from tests.helpers import wait_until, watched

MIXED = [
    GenerationOptions(strategy="greedy"),
    GenerationOptions(strategy="beam", num_beams=3),
    GenerationOptions(strategy="beam", num_beams=2, num_return_sequences=2, max_words=3),
    GenerationOptions(strategy="sample", num_return_sequences=2, seed=4, max_words=6),
    GenerationOptions(prompt="a brown", max_words=5),
]
SECONDS = 30.0  # after which a test has failed
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def start_scheduler():
    """Return a function that starts a scheduler with some limits; it is stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(**limits: int) -> Scheduler:
            scheduler = Scheduler(SchedulerLimits(**{"max_rows": 32, "encode_batch_size": 4} | limits))
            scheduler.start()
            stack.callback(scheduler.stop)
            return scheduler

        yield start


def make_job(captioner: Captioner, view: ImageView, group: Hashable = None, **options: object) -> Job:
    """Return the job of one image, in a group of its own unless one is named."""
    request = CaptionRequest(view=view, options=GenerationOptions(**options))  # type: ignore[arg-type]
    return Job(captioner, request, object() if group is None else group)


def jobs_of(captioner: Captioner, views: list[ImageView], **options: object) -> list[Job]:
    return [make_job(captioner, view, **options) for view in views]


def finish_order(jobs: list[Job]) -> list[Job]:
    """Return a list that each job joins when it has a result."""
    order: list[Job] = []
    for job in jobs:
        job.future.add_done_callback(lambda future, job=job: future.exception() or order.append(job))
    return order


def raise_for(view: ImageView, error: Exception) -> Callable[[torch.Tensor], None]:
    """Return a hook of encoder calls that raises for one image."""

    def hook(pixels: torch.Tensor) -> None:
        if any(torch.equal(image, view.pixels) for image in pixels):
            raise error

    return hook


def assert_equal_results(one, other):
    """Equal results: equal texts, log-probabilities, reliance and maps within 1e-4."""
    for first, second in zip(one.captions, other.captions, strict=True):
        assert first.text == second.text
        assert first.log_probability == pytest.approx(second.log_probability, abs=1e-4)
        for word, expected in zip(first.words, second.words, strict=True):
            assert word.image_reliance == pytest.approx(expected.image_reliance, abs=1e-4)
            torch.testing.assert_close(word.map.values, expected.map.values, atol=1e-4, rtol=0)


def assert_as_alone(captioner: Captioner, jobs: list[Job]) -> None:
    """Wait for jobs and compare each result with that of the same request alone."""
    for job in jobs:
        (alone,) = captioner.caption([job.request.view], job.request.options)
        assert_equal_results(job.future.result(SECONDS), alone)


def test_images_of_all_options_step_together_and_get_what_they_get_alone(start_scheduler, tiny_captioner, views):
    requests = [CaptionRequest(view=view, options=options) for view in views for options in MIXED]
    jobs = [Job(tiny_captioner, request, number // len(MIXED)) for number, request in enumerate(requests)]
    explained = Job(tiny_captioner, CaptionRequest(view=views[0], texts=("a dog runs",)), "explained")
    scheduler = start_scheduler(max_rows=7)
    for job in [*jobs, explained]:
        scheduler.submit(job)
    assert_as_alone(tiny_captioner, jobs)
    assert_equal_results(explained.future.result(SECONDS), tiny_captioner.explain([views[0]], [["a dog runs"]])[0])
    wait_until(lambda: scheduler.num_waiting == scheduler.num_active == scheduler.num_unanswered == 0)


def test_a_batch_does_not_delay_a_single_image(start_scheduler, tiny_captioner, views):
    batch = [make_job(tiny_captioner, views[0], "batch") for _ in range(30)]
    single = make_job(tiny_captioner, views[1])
    order = finish_order([*batch, single])
    start_scheduler(max_rows=6, encode_batch_size_idle=2).submit(*batch, single)
    wait_until(lambda: len(order) == 31)
    assert order.index(single) <= 4, "its turn is after one image of the batch, not after thirty"


def test_every_group_has_a_turn_before_any_has_two(start_scheduler, tiny_captioner, views):
    jobs = [make_job(tiny_captioner, views[0], group + 1) for group in range(6) for _ in range(4)]
    order = finish_order(jobs)
    start_scheduler(max_rows=6, encode_batch_size_idle=2, encode_batch_size=2).submit(*jobs)
    wait_until(lambda: len(order) == len(jobs))
    assert {job.group for job in order[:8]} == {1, 2, 3, 4, 5, 6}


def test_a_job_that_is_cancelled_while_its_rows_step_frees_them(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    steps: list[int] = []

    def cancel_in_second_step(tokens: torch.Tensor, _: bool) -> None:
        steps.append(tokens.size(0))
        if len(steps) == 2:
            leaves.future.cancel()

    runtime.before_decode = cancel_in_second_step
    scheduler = start_scheduler(max_rows=3)
    leaves = make_job(captioner, views[0], min_new_tokens=40, max_words=60)
    stays = make_job(tiny_captioner, views[1])
    scheduler.submit(leaves, stays)  # its three rows would fit only after those of the other
    assert_as_alone(tiny_captioner, [stays])
    assert leaves.future.cancelled()
    assert steps == [1, 3], "no step after the one that was running"
    wait_until(lambda: scheduler.num_active == scheduler.num_unanswered == 0)


def test_a_job_that_leaves_a_batch_changes_no_other_caption(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    jobs = jobs_of(captioner, views, min_new_tokens=8)
    runtime.before_decode = lambda tokens, _: jobs[1].future.cancel() if tokens.size(0) == 9 else None
    start_scheduler().submit(*jobs)
    assert_as_alone(tiny_captioner, [jobs[0], jobs[2]])
    assert jobs[1].future.cancelled()


def test_few_images_are_encoded_between_the_steps_of_others(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    jobs = jobs_of(captioner, views * 4, strategy="greedy")
    start_scheduler(max_rows=40, encode_batch_size_idle=4, encode_batch_size=2).submit(*jobs)
    assert_as_alone(tiny_captioner, jobs)
    assert runtime.encoded[0] == 4
    assert max(runtime.encoded[1:]) <= 4
    assert 2 in runtime.encoded[1:]


def test_a_cancelled_job_is_dropped_whether_it_is_queued_or_active(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    entered, go_on = threading.Event(), threading.Event()

    def wait(_: torch.Tensor) -> None:
        entered.set()
        go_on.wait(SECONDS)

    runtime.before_encode = wait
    scheduler = start_scheduler(encode_batch_size_idle=1)
    active, queued, stays = jobs = jobs_of(captioner, views)
    scheduler.submit(*jobs)
    assert entered.wait(SECONDS)
    active.future.cancel()
    queued.future.cancel()
    go_on.set()
    stays.future.result(SECONDS)
    assert sum(runtime.encoded) == 2, "the queued one was never encoded"
    wait_until(lambda: scheduler.num_waiting == scheduler.num_active == 0)


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


def test_stopping_finishes_what_is_queued(start_scheduler, tiny_captioner, views):
    scheduler = start_scheduler()
    scheduler.submit(*(jobs := jobs_of(tiny_captioner, views * 3)))
    scheduler.stop()
    assert all(job.future.done() and not job.future.exception() for job in jobs)


def test_images_that_wait_for_a_full_encoder_call_do_not_wait_for_one_long_caption(start_scheduler, tiny_captioner, views):
    long = make_job(tiny_captioner, views[0], strategy="greedy", min_new_tokens=80, max_new_tokens=90, max_words=60)
    short = jobs_of(tiny_captioner, views * 2, num_beams=8, max_new_tokens=2)
    order = finish_order([long, *short])
    start_scheduler(max_rows=16, encode_batch_size=4).submit(long, *short)
    wait_until(lambda: len(order) == 7)
    assert order.index(long) > 2, "one row of sixteen delays no other image"


def test_while_images_wait_captions_are_scored_together(start_scheduler, tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    scored: list[int] = []  # captions per scoring pass
    runtime.before_decode = lambda tokens, weights: scored.append(tokens.size(0)) if weights else None
    one_caption = [MIXED[0], MIXED[1], GenerationOptions(strategy="sample", seed=4, max_words=6)]
    jobs = [Job(captioner, CaptionRequest(view=views[n % 3], options=one_caption[n // 3 % 3]), n) for n in range(24)]
    start_scheduler(max_rows=12, encode_batch_size=4).submit(*jobs)
    assert_as_alone(tiny_captioner, jobs)
    assert sum(scored) == len(jobs)
    assert max(scored) >= 4


def test_retry_after_follows_the_measured_rate():
    rate = Rate()
    assert rate.retry_after(50) == 1, "before any measurement"
    rate.add(10, 2.0)
    assert rate.retry_after(50) == 10
    for _ in range(200):
        rate.add(1, 2.0)  # it became slower
    assert rate.retry_after(10) == pytest.approx(20, abs=1)
    assert rate.retry_after(100_000) == 60
