"""The model thread: whatever joins, leaves or fails, every image gets the captions that it gets alone."""

from __future__ import annotations

import pytest
import torch

from model import CaptionRequest, GenerationOptions
from service.runtime import Job
from service.runtime.rate import Rate
from tests.helpers import paused, wait_until, watched
from tests.scheduling import (
    MIXED,
    SECONDS,
    assert_as_alone,
    assert_equal_results,
    finish_order,
    jobs_of,
    make_job,
)


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
    captioner, hook = paused(tiny_captioner)
    scheduler = start_scheduler(encode_batch_size_idle=1)
    active, queued, stays = jobs = jobs_of(captioner, views)
    scheduler.submit(*jobs)
    assert hook.entered.wait(SECONDS)
    active.future.cancel()
    queued.future.cancel()
    hook.go_on.set()
    stays.future.result(SECONDS)
    assert sum(captioner.runtime.encoded) == 2, "the queued one was never encoded"
    wait_until(lambda: scheduler.num_waiting == scheduler.num_active == 0)


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
