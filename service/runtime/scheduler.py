"""The model thread: continuous batching of all requests, and what happens when a call of the network fails.

One thread owns every network. Requests wait in groups, one image of each group in turn, so that a batch of 64 does not keep
single callers waiting. Rows of all options step together; while rows run, few images are encoded between two steps, and while
images wait, finished captions are scored together. A call that fails is repeated with half of its images, down to one, so that
one image's failure, or a lack of device memory, costs only what causes it. No HTTP here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from model import CaptionBatch, Captioner, CaptionResult, is_out_of_memory, release_memory
from service.metrics import Metrics
from service.runtime.jobs import Job
from service.runtime.rate import Rate

_SCORE_TOGETHER = 4  # captions, while images wait: docs/decisions.md
_LOG = logging.getLogger(__name__)


class Unserved(Exception):
    """The model thread has failed or is stopping: this work is not done."""


class _Abandoned(Exception):
    """The clients of all captions that are being scored have left."""


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much the model thread computes at once."""

    max_rows: int  # rows that step together, over all checkpoints
    encode_batch_size: int  # images per encoder call while rows run: they wait for it
    encode_batch_size_idle: int = 8  # and while no row runs


class Scheduler:
    """Owns the model thread; `submit` may be called from any thread."""

    def __init__(self, limits: SchedulerLimits, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._queue: OrderedDict[Hashable, deque[Job]] = OrderedDict()  # by group
        self._batches: dict[Captioner, CaptionBatch] = {}  # of captioners that have images; a batch's keys are its jobs
        self._unanswered: set[Future[CaptionResult]] = set()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._error: BaseException | None = None
        self._last_progress = time.monotonic()
        self._is_busy = False
        self._scoring: list[Job] = []  # whose captions are being scored
        self.rate = Rate()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, *jobs: Job) -> None:
        """Queue images. Raises Unserved if the thread has ended or is ending."""
        with self._wake:
            if self._error is not None or self._is_stopping:
                raise Unserved("the model thread has ended")
            for job in jobs:
                self._unanswered.add(job.future)
                self._queue.setdefault(job.group, deque()).append(job)
            self._wake.notify()
        for job in jobs:  # the callback must not refer to the job: it would keep itself, its image and its network alive
            job.future.add_done_callback(self._unanswered.discard)

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def error(self) -> BaseException | None:
        """What ended the thread, None while it lives."""
        return self._error

    @property
    def num_waiting(self) -> int:
        """Images in the queue."""
        with self._wake:
            return sum(len(jobs) for jobs in self._queue.values())

    @property
    def num_active(self) -> int:
        """Images that are being captioned."""
        return sum(len(batch.keys) for batch in list(self._batches.values()))

    @property
    def num_unanswered(self) -> int:
        return len(self._unanswered)

    def seconds_since_progress(self) -> float:
        """Return how long the thread has been in one call of the network; 0 while it is idle."""
        return time.monotonic() - self._last_progress if self._is_busy else 0.0

    def fail_all(self, error: BaseException) -> None:
        """Fail everything queued or active: the thread hangs, or has died."""
        with self._wake:
            self._error = self._error or error
            self._queue.clear()
        for future in list(self._unanswered):
            with contextlib.suppress(InvalidStateError):  # it was answered or cancelled in between
                future.set_exception(Unserved(str(error)))

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                started = time.perf_counter()
                self._drop_cancelled()
                self._admit()
                finished = sum(self._step(captioner) for captioner in list(self._batches))
                # A captioner without images may have been replaced by another: its memory is released.
                self._batches = {captioner: batch for captioner, batch in self._batches.items() if batch.keys}
                self.rate.add(finished, time.perf_counter() - started)
        except BaseException as error:
            _LOG.critical("the model thread has failed", exc_info=error)
            self.fail_all(error)
        finally:
            self._is_busy = False

    def _wait_for_work(self) -> bool:
        """Wait until there is work; returns False when the thread is to end."""
        with self._wake:
            while not self._queue and not self.num_active:
                if self._is_stopping:
                    return False
                self._is_busy = False
                self._wake.wait()
            self._last_progress, self._is_busy = time.monotonic(), True
            return self._error is None

    def _drop_cancelled(self) -> None:
        """Remove cancelled jobs, queued or active: their rows are gone before the next step."""
        with self._wake:
            for group, jobs in list(self._queue.items()):
                kept = deque(job for job in jobs if not job.future.cancelled())
                if kept:
                    self._queue[group] = kept
                else:
                    del self._queue[group]
        for batch in self._batches.values():
            for job in [job for job in _jobs(batch) if job.future.cancelled()]:
                batch.remove(job)

    def _admit(self) -> None:
        """Encode the next images of the groups in turn, as many as there are free rows for.

        While most rows run and more images wait than there is room for, they wait until a full encoder call fits: one of two
        images costs little more than one of one.
        """
        rows = sum(batch.num_rows for batch in self._batches.values())
        count = self._limits.encode_batch_size if rows else self._limits.encode_batch_size_idle
        with self._wake:
            candidates = self._next(count)
            free = self._limits.max_rows - rows
            admitted: list[Job] = []
            for job in candidates:
                needed = max(1, job.request.num_rows)
                if needed > free and (rows or admitted):
                    break
                admitted.append(job)
                free -= needed
            is_call_incomplete = len(admitted) < len(candidates)
            if is_call_incomplete and rows > self._limits.max_rows / 2:
                return  # wait for free rows
            for job in admitted:
                self._queue[job.group].popleft()
                self._queue.move_to_end(job.group)
                if not self._queue[job.group]:
                    del self._queue[job.group]
        by_captioner: dict[Captioner, list[Job]] = {}
        now = time.perf_counter()
        for job in admitted:
            job.queue_ms = 1e3 * (now - job.queued)
            self._metrics.queue_seconds.observe(now - job.queued)
            by_captioner.setdefault(job.captioner, []).append(job)
        for captioner, jobs in by_captioner.items():
            self._encode(captioner, jobs)

    def _next(self, count: int) -> list[Job]:
        """Return the jobs whose turn is next: one of each group, then the second of each, and so on."""
        jobs: list[Job] = []
        depth = 0
        while len(jobs) < count and any(len(group) > depth for group in self._queue.values()):
            jobs += [group[depth] for group in self._queue.values() if len(group) > depth]
            depth += 1
        return jobs[:count]

    def _encode(self, captioner: Captioner, jobs: list[Job]) -> None:
        """Encode images together; if that fails, as two halves: a failure belongs to one image."""
        batch = self._batches.setdefault(captioner, captioner.batch(self._progress))
        try:
            with self._metrics.encode_seconds.time():
                batch.add(jobs, [job.request for job in jobs])
            self._last_progress = time.monotonic()
            return
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
            self._note_out_of_memory(error)
        # Here, after the handler, nothing refers to the failed computation any more: its memory can be given back.
        release_memory(captioner.runtime.device)
        if len(jobs) > 1:
            half = len(jobs) // 2
            for part in (jobs[:half], jobs[half:]):
                self._encode(captioner, part)
        self._last_progress = time.monotonic()

    def _step(self, captioner: Captioner) -> int:
        """Decode the next token of every row of a captioner; returns the number of finished images."""
        jobs = _jobs(self._batches[captioner])
        if not jobs:
            return 0
        try:
            finished = self._decode_and_score(self._batches[captioner], jobs)
        except Exception as error:
            _LOG.error("a step failed; its %d images are retried one by one", len(jobs), exc_info=error)
            self._note_out_of_memory(error)
            finished = None
        if finished is None:  # after the handler, as in _encode
            self._batches[captioner] = captioner.batch(self._progress)
            release_memory(captioner.runtime.device)
            return self._retry(captioner, jobs)
        for job, result in finished:
            job.finish(result)
            self._metrics.words.inc(sum(len(caption.words) for caption in result.captions))
        self._last_progress = time.monotonic()
        return len(finished)

    def _decode_and_score(self, batch: CaptionBatch, jobs: list[Job]) -> list[tuple[Job, CaptionResult]]:
        """Decode the next token of every row, and return the results of images that are finished."""
        self._metrics.batch_rows.observe(batch.num_rows)
        with self._metrics.step_seconds.time():
            decoded = [job for job in batch.step() if isinstance(job, Job)]
        self._last_progress = time.monotonic()
        for job in jobs:
            if job.on_words is not None and (words := batch.new_words(job)):
                job.on_words(words)
        if len(decoded) < _SCORE_TOGETHER and batch.num_rows and self._queue:
            return []
        scored = decoded[:_SCORE_TOGETHER]
        self._scoring = scored
        try:
            return list(zip(scored, batch.pop_results(scored), strict=True))
        except _Abandoned:
            return []  # the next turn removes cancelled jobs
        finally:
            self._scoring = []

    def _progress(self) -> None:
        """Note that a call of the network has ended; ends a scoring pass, which may have many, whose clients have left."""
        self._last_progress = time.monotonic()
        if self._scoring and all(job.future.cancelled() for job in self._scoring):
            raise _Abandoned

    def _retry(self, captioner: Captioner, jobs: list[Job]) -> int:
        """Caption the images of a failed step one by one, each from its start."""
        for job in jobs:
            if job.future.cancelled():
                continue
            batch = captioner.batch(self._progress)
            try:
                batch.add([job], [job.request])
                while not (decoded := batch.step()):
                    self._last_progress = time.monotonic()
                (result,) = batch.pop_results(decoded)
                job.finish(result)
                self._metrics.words.inc(sum(len(caption.words) for caption in result.captions))
            except Exception as error:
                self._note_out_of_memory(error)
                job.fail(error)
            self._last_progress = time.monotonic()
        return len(jobs)

    @staticmethod
    def _note_out_of_memory(error: Exception) -> None:
        if is_out_of_memory(error):
            _LOG.warning("the device has no memory left: %s", error)


def _jobs(batch: CaptionBatch) -> list[Job]:
    return [key for key in batch.keys if isinstance(key, Job)]
