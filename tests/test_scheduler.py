"""The model thread: whatever joins, leaves or fails, every picture gets the captions that it would get alone."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from model import CaptionBatch, Captioner, CaptionRequest, GenerationOptions, TextError
from service.runtime.rate import Rate
from service.runtime.scheduler import Job, Scheduler, SchedulerLimits, Unserved

MIXED = [
    GenerationOptions(strategy="greedy"),
    GenerationOptions(strategy="beam", num_beams=3),
    GenerationOptions(strategy="beam", num_beams=2, num_return_sequences=2, max_words=3),
    GenerationOptions(strategy="sample", num_return_sequences=2, seed=4, max_words=6),
    GenerationOptions(prompt="a brown", max_words=5),
]


@pytest.fixture
def scheduler(tiny_captioner):
    made = []

    def make(**limits: int) -> Scheduler:
        found = Scheduler(SchedulerLimits(**{"max_rows": 32, "encode_batch_size": 4} | limits))
        found.start()
        made.append(found)
        return found

    yield make
    for found in made:
        found.stop()


def same(one, other):
    """The definition of equal answers: tokens equal, log-probabilities and maps within 1e-4."""
    for first, second in zip(one.captions, other.captions, strict=True):
        assert first.text == second.text
        assert first.log_probability == pytest.approx(second.log_probability, abs=1e-4)
        for word, expected in zip(first.words, second.words, strict=True):
            assert word.image_reliance == pytest.approx(expected.image_reliance, abs=1e-4)
            torch.testing.assert_close(word.map.values, expected.map.values, atol=1e-4, rtol=0)


def test_pictures_of_all_options_step_together_and_get_what_they_get_alone(scheduler, tiny_captioner, views):
    jobs = [Job(tiny_captioner, CaptionRequest(view=view, options=options), group) for group, view in enumerate(views) for options in MIXED]
    jobs += [Job(tiny_captioner, CaptionRequest(view=views[0], texts=("a dog runs",)), "explained")]
    running = scheduler(max_rows=7)
    for job in jobs:
        running.submit(job)
    for job in jobs[:-1]:
        (alone,) = tiny_captioner.caption([job.request.view], job.request.options)
        same(job.future.result(30), alone)
    same(jobs[-1].future.result(30), tiny_captioner.explain([views[0]], [["a dog runs"]])[0])
    assert running.num_waiting == running.num_active == 0


def test_a_batch_does_not_keep_a_single_caller_waiting(scheduler, tiny_captioner, views):
    finished: list[str] = []
    many = [Job(tiny_captioner, CaptionRequest(view=views[0], options=GenerationOptions()), "batch") for _ in range(30)]
    one = Job(tiny_captioner, CaptionRequest(view=views[1], options=GenerationOptions()), "single")
    for job in many:
        job.future.add_done_callback(lambda _: finished.append("batch"))
    one.future.add_done_callback(lambda _: finished.append("single"))
    running = scheduler(max_rows=6, encode_batch_size_idle=2)
    with running._wake:  # nothing begins before all are there
        for job in [*many, one]:
            running.submit(job)
    for job in [*many, one]:
        job.future.result(30)
    assert finished.index("single") <= 4, "it has its turn after one picture of the batch, not after thirty"


def test_no_group_is_kept_waiting_by_those_before_it(scheduler, tiny_captioner, views):
    order: list[int] = []
    jobs = [
        (group, Job(tiny_captioner, CaptionRequest(view=views[0], options=GenerationOptions()), group)) for group in range(6) for _ in range(4)
    ]
    for group, job in jobs:
        job.future.add_done_callback(lambda _, group=group: order.append(group))
    running = scheduler(max_rows=6, encode_batch_size_idle=2, encode_batch_size=2)
    with running._wake:
        for _, job in jobs:
            running.submit(job)
    for _, job in jobs:
        job.future.result(30)
    assert set(order[:8]) == set(range(6)), "each has had a turn before the first has had two"


def test_who_leaves_while_rows_run_frees_them(scheduler, tiny_captioner, views):
    running = scheduler(max_rows=3)
    steps = []
    original = CaptionBatch.step

    def step(batch):
        steps.append(list(batch.keys))
        if len(steps) == 2:
            leaves.future.cancel()
        return original(batch)

    CaptionBatch.step = step
    try:
        leaves = Job(tiny_captioner, CaptionRequest(view=views[0], options=GenerationOptions(min_new_tokens=40, max_words=60)), 1)
        running.submit(leaves)
        while not leaves.future.cancelled():
            time.sleep(0.01)
        stays = Job(tiny_captioner, CaptionRequest(view=views[1], options=GenerationOptions()), 2)
        running.submit(stays)
        stays.future.result(30)
    finally:
        CaptionBatch.step = original
    assert sum(leaves in keys for keys in steps) <= 3, "no step beyond the running one"
    assert running.num_active == 0


class Watched(Captioner):
    """Counts encoder calls and steps; can be made to fail or to hang."""

    def __init__(self, other: Captioner) -> None:
        self.__dict__.update(other.__dict__)
        self.encoded: list[int] = []
        self.before = lambda views: None

    def encode(self, views):
        self.encoded.append(len(views))
        self.before(views)
        return super().encode(views)


def test_few_pictures_are_encoded_between_the_steps_of_others(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)
    running = scheduler(max_rows=40, encode_batch_size_idle=4, encode_batch_size=2)
    with running._wake:
        jobs = [Job(watched, CaptionRequest(view=views[0], options=GenerationOptions(strategy="greedy")), number) for number in range(12)]
        for job in jobs:
            running.submit(job)
    for job in jobs:
        job.future.result(30)
    assert watched.encoded[0] == 4
    assert max(watched.encoded[1:]) <= 4
    assert 2 in watched.encoded[1:]


def test_who_leaves_is_dropped_queued_or_running(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)
    enter, go_on = threading.Event(), threading.Event()

    def hold(_):
        enter.set()
        go_on.wait(20)

    watched.before = hold
    running = scheduler(encode_batch_size_idle=1)
    first, queued, stays = (Job(watched, CaptionRequest(view=view, options=GenerationOptions()), number) for number, view in enumerate(views))
    for job in (first, queued, stays):
        running.submit(job)
    enter.wait(20)
    first.future.cancel()  # it is being encoded
    queued.future.cancel()
    go_on.set()
    stays.future.result(30)
    assert sum(watched.encoded) == 2, "the one in the queue was never encoded"
    assert running.num_waiting == running.num_active == 0


def test_a_picture_that_fails_fails_alone(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)

    def poison(found):
        if any(view is views[1] for view in found):
            raise RuntimeError("this picture")

    watched.before = poison
    running = scheduler()
    with running._wake:
        jobs = [Job(watched, CaptionRequest(view=view, options=GenerationOptions()), number) for number, view in enumerate(views)]
        jobs.append(Job(watched, CaptionRequest(view=views[0], options=GenerationOptions(prompt="a " * 200)), "long"))
        for job in jobs:
            running.submit(job)
    with pytest.raises(RuntimeError, match="this picture"):
        jobs[1].future.result(30)
    with pytest.raises(TextError, match="has room for"):
        jobs[3].future.result(30)
    for job in (jobs[0], jobs[2]):
        same(job.future.result(30), tiny_captioner.caption([job.request.view])[0])


def test_a_step_that_fails_is_repeated_picture_by_picture(scheduler, tiny_captioner, views, monkeypatch):
    steps = []
    original = CaptionBatch.step

    def step(self):
        steps.append(len(self.keys))
        if len(self.keys) > 1 and len(steps) > 2:
            raise RuntimeError("together they do not fit")
        return original(self)

    monkeypatch.setattr(CaptionBatch, "step", step)
    running = scheduler()
    with running._wake:
        jobs = [Job(tiny_captioner, CaptionRequest(view=view, options=options), object()) for view in views for options in MIXED[:3]]
        for job in jobs:
            running.submit(job)
    for job in jobs:
        same(job.future.result(30), tiny_captioner.caption([job.request.view], job.request.options)[0])
    assert running.error is None


def test_the_end_of_the_thread_is_told_to_all_that_wait(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)

    def end(_):
        raise SystemExit("killed")

    watched.before = end
    running = scheduler(encode_batch_size_idle=1)
    with running._wake:
        jobs = [Job(watched, CaptionRequest(view=view, options=GenerationOptions()), number) for number, view in enumerate(views)]
        for job in jobs:
            running.submit(job)
    for job in jobs[1:]:
        with pytest.raises(Unserved):
            job.future.result(10)
    assert isinstance(running.error, SystemExit)
    with pytest.raises(Unserved):
        running.submit(Job(watched, CaptionRequest(view=views[0], options=GenerationOptions()), 9))
    with pytest.raises(Unserved):
        jobs[0].future.result(1)


def test_a_thread_that_hangs_is_seen_and_one_that_waits_is_not(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)
    go_on = threading.Event()
    watched.before = lambda _: go_on.wait(20)
    running = scheduler()
    time.sleep(0.2)
    assert running.seconds_since_progress() == 0, "nothing to do is no silence"
    job = Job(watched, CaptionRequest(view=views[0], options=GenerationOptions()), 1)
    running.submit(job)
    time.sleep(0.4)
    assert running.seconds_since_progress() > 0.3
    running.fail_all(TimeoutError("silent"))
    with pytest.raises(Unserved):
        job.future.result(1)
    go_on.set()


def test_stopping_does_what_is_queued(scheduler, tiny_captioner, views):
    running = scheduler()
    jobs = [Job(tiny_captioner, CaptionRequest(view=view, options=GenerationOptions()), number) for number, view in enumerate(views * 3)]
    for job in jobs:
        running.submit(job)
    running.stop()
    assert all(job.future.done() and not job.future.exception() for job in jobs)


def test_pictures_that_wait_for_a_whole_call_do_not_wait_for_one_long_caption(scheduler, tiny_captioner, views):
    watched = Watched(tiny_captioner)
    running = scheduler(max_rows=16, encode_batch_size=4)
    long = Job(
        watched,
        CaptionRequest(view=views[0], options=GenerationOptions(strategy="greedy", min_new_tokens=80, max_new_tokens=90, max_words=60)),
        "long",
    )
    wide = [
        Job(watched, CaptionRequest(view=view, options=GenerationOptions(num_beams=8, max_new_tokens=2)), number)
        for number, view in enumerate(views * 2)
    ]
    order = []
    for job in (long, *wide):
        job.future.add_done_callback(lambda _, job=job: order.append(job is long))
    with running._wake:
        for job in (long, *wide):
            running.submit(job)
    for job in (long, *wide):
        job.future.result(30)
    assert order.index(True) > 2, "one row of sixteen keeps nobody out"


def test_while_pictures_wait_captions_are_read_together(scheduler, tiny_captioner, views, monkeypatch):
    read = []
    original = CaptionBatch.read
    monkeypatch.setattr(CaptionBatch, "read", lambda batch, keys: (read.append(len(keys)), original(batch, keys))[1])
    running = scheduler(max_rows=12, encode_batch_size=4)
    jobs = [Job(tiny_captioner, CaptionRequest(view=views[number % 3], options=MIXED[number % 4]), number) for number in range(24)]
    with running._wake:
        for job in jobs:
            running.submit(job)
    for job in jobs:
        same(job.future.result(30), tiny_captioner.caption([job.request.view], job.request.options)[0])
    assert sum(read) == len(jobs)
    assert max(read) >= 4


def test_the_time_to_come_back_follows_the_measured_rate():
    rate = Rate()
    assert rate.retry_after(50) == 1, "nothing is known yet"
    rate.add(10, 2.0)
    assert rate.retry_after(50) == 10
    for _ in range(200):
        rate.add(1, 2.0)  # it became slower
    assert rate.retry_after(10) == pytest.approx(20, abs=1)
    assert rate.retry_after(100_000) == 60
