"""What the tests of the scheduler share: jobs, a running scheduler, and comparison with the same requests alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable

import pytest
import torch

from model import Captioner, CaptionRequest, GenerationOptions, ImageView
from service.runtime import Job, Scheduler, SchedulerLimits

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
