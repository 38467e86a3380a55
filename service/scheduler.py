"""The model thread: which pictures are encoded, which rows step, what is read out, and what happens when that fails.

One thread owns every network. Requests wait in groups, one picture a turn, so that a batch of 64 does not keep single
callers waiting. Rows of all options step together; while rows run, few pictures are encoded between two steps, and while
pictures wait, those whose captions are found are read together. A step that fails is repeated picture by picture, so that
one picture's failure is its own. Nothing here knows HTTP, or the names of checkpoints: a job brings its captioner.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from model import CaptionBatch, Captioner, CaptionRequest, CaptionResult, Word
from service.metrics import Metrics
from service.rate import Rate

_READ_TOGETHER = 4  # captions, while pictures wait: docs/decisions.md
_LOG = logging.getLogger(__name__)


class Unserved(Exception):
    """The model thread has failed or is stopping: this work is not done."""


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much the model thread takes on at once."""

    rows: int  # rows that step together, over all checkpoints
    encoded_busy: int  # pictures an encoder call while rows run: they wait for it
    encoded_idle: int = 8  # and while no row runs


@dataclass(eq=False, slots=True)
class Job:
    """One picture from its place in the queue to its captions. Cancelling `done` is how a client leaves."""

    captioner: Captioner
    wanted: CaptionRequest
    group: Hashable  # pictures of one request
    queued: float = field(default_factory=time.perf_counter)
    waited_ms: float = 0.0
    done: Future[CaptionResult] = field(default_factory=Future)
    progress: Callable[[tuple[Word, ...]], None] | None = None  # told each word as soon as it is final

    def finish(self, captions: CaptionResult) -> None:
        if not self.done.cancelled():
            try:
                self.done.set_result(captions)
            except InvalidStateError:  # it was cancelled in between
                return

    def fail(self, error: BaseException) -> None:
        if not self.done.cancelled():
            try:
                self.done.set_exception(error)
            except InvalidStateError:
                return


@dataclass(slots=True)
class _Running:
    """The pictures of one captioner whose captions are being made."""

    batch: CaptionBatch
    jobs: list[Job] = field(default_factory=list)


class Scheduler:
    """Owns the thread that captioners compute in; `submit` may be called from any thread."""

    def __init__(self, limits: SchedulerLimits, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._groups: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._running: dict[Captioner, _Running] = {}  # of the captioners that have pictures
        self._open: set[Future[CaptionResult]] = set()  # submitted, and not answered yet
        self._wake = threading.Condition()
        self._stopping = False
        self._failed: BaseException | None = None
        self._beat = time.monotonic()
        self._busy = False
        self.rate = Rate()
        self._thread = threading.Thread(target=self._live, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a picture. Raises Unserved where the thread has ended or is ending."""
        with self._wake:
            if self._failed is not None or self._stopping:
                raise Unserved("the model thread has ended")
            self._open.add(job.done)
            self._groups.setdefault(job.group, deque()).append(job)
            self._wake.notify()
        job.done.add_done_callback(self._open.discard)  # not of the job: it would hold itself, its picture and its network

    def stop(self) -> None:
        """Do what is queued, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def failed(self) -> BaseException | None:
        """What ended the thread, None while it lives."""
        return self._failed

    @property
    def waiting(self) -> int:
        """Pictures that are queued."""
        with self._wake:
            return sum(len(jobs) for jobs in self._groups.values())

    @property
    def running(self) -> int:
        """Pictures whose captions are being made."""
        return sum(len(running.jobs) for running in list(self._running.values()))

    @property
    def unanswered(self) -> int:
        """Pictures that somebody waits for."""
        return len(self._open)

    def silent_for(self) -> float:
        """Return for how many seconds the thread has been in one call of the network; 0 while it has nothing to do."""
        return time.monotonic() - self._beat if self._busy else 0.0

    def abandon(self, error: BaseException) -> None:
        """Fail all that is queued or running: the thread hangs, or has died."""
        with self._wake:
            self._failed = self._failed or error
            self._groups.clear()
        for done in list(self._open):
            with contextlib.suppress(InvalidStateError):  # it was answered or cancelled in between
                done.set_exception(Unserved(str(error)))

    def _live(self) -> None:
        try:
            while self._await_work():
                started = time.perf_counter()
                self._drop_cancelled()
                self._admit()
                finished = sum(self._step(captioner) for captioner in list(self._running))
                # A captioner that has no pictures may have been swapped for another: its memory is given back.
                self._running = {captioner: running for captioner, running in self._running.items() if running.jobs}
                self.rate.add(finished, time.perf_counter() - started)
        except BaseException as error:
            _LOG.critical("the model thread has failed", exc_info=error)
            self.abandon(error)
        finally:
            self._busy = False

    def _await_work(self) -> bool:
        """Wait until there is something to do; returns False when the thread is to end."""
        with self._wake:
            while not self._groups and not self.running:
                if self._stopping:
                    return False
                self._busy = False
                self._wake.wait()
            self._beat, self._busy = time.monotonic(), True
            return self._failed is None

    def _drop_cancelled(self) -> None:
        """Let go of what nobody waits for, queued or running: its rows are gone before the next step."""
        with self._wake:
            for group, jobs in list(self._groups.items()):
                kept = deque(job for job in jobs if not job.done.cancelled())
                if kept:
                    self._groups[group] = kept
                else:
                    del self._groups[group]
        for running in self._running.values():
            for job in [job for job in running.jobs if job.done.cancelled()]:
                running.batch.remove(job)
                running.jobs.remove(job)

    def _admit(self) -> None:
        """Encode the next pictures of the groups in turn, as many as rows are free for.

        While most rows run and more pictures wait than there is room for, they wait until a whole encoder call fits: one of
        two costs little more than one of one.
        """
        rows = sum(running.batch.num_rows for running in self._running.values())
        most = self._limits.encoded_busy if rows else self._limits.encoded_idle
        with self._wake:
            turns = self._next(most)
            free = self._limits.rows - rows
            fitting: list[Job] = []
            for job in turns:
                needed = max(1, job.wanted.num_rows)
                if needed > free and (rows or fitting):
                    break
                fitting.append(job)
                free -= needed
            if 2 * rows > self._limits.rows and len(fitting) < len(turns):
                return
            for job in fitting:
                self._groups[job.group].popleft()
                self._groups.move_to_end(job.group)
                if not self._groups[job.group]:
                    del self._groups[job.group]
        chosen: dict[Captioner, list[Job]] = {}
        now = time.perf_counter()
        for job in fitting:
            job.waited_ms = 1e3 * (now - job.queued)
            self._metrics.queue_seconds.observe(now - job.queued)
            chosen.setdefault(job.captioner, []).append(job)
        for captioner, jobs in chosen.items():
            self._begin(captioner, jobs)

    def _next(self, most: int) -> list[Job]:
        """Return the pictures whose turn is next, one of each group, then the second of each, and so on."""
        found: list[Job] = []
        depth = 0
        while len(found) < most and any(len(jobs) > depth for jobs in self._groups.values()):
            found += [jobs[depth] for jobs in self._groups.values() if len(jobs) > depth]
            depth += 1
        return found[:most]

    def _begin(self, captioner: Captioner, jobs: list[Job]) -> None:
        """Encode pictures together, and one by one where that fails: a failure is one picture's own."""
        if captioner not in self._running:
            self._running[captioner] = _Running(captioner.batch())
        running = self._running[captioner]
        try:
            with self._metrics.encode_seconds.time():
                running.batch.add(jobs, [job.wanted for job in jobs])
            running.jobs.extend(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            for job in jobs:
                self._begin(captioner, [job])
        self._beat = time.monotonic()

    def _step(self, captioner: Captioner) -> int:
        """Score the next token of every row of a captioner; returns how many pictures are done."""
        running = self._running[captioner]
        batch, finished = running.batch, list[tuple[Job, CaptionResult]]()
        if not running.jobs:
            return 0
        try:
            self._metrics.max_batch_rows.observe(batch.num_rows)
            with self._metrics.step_seconds.time():
                found = [job for job in batch.step() if isinstance(job, Job)]
            self._beat = time.monotonic()
            for job in running.jobs:
                if job.progress is not None and (words := batch.new_words(job)):
                    job.progress(words)
            if len(found) >= _READ_TOGETHER or not batch.num_rows or not self._groups:
                read = found[:_READ_TOGETHER]
                finished = list(zip(read, batch.pop_results(read), strict=True))
        except Exception as error:
            _LOG.error("a step failed; its %d pictures are tried one by one", len(running.jobs), exc_info=error)
            return self._retry(captioner)
        for job, captions in finished:
            running.jobs.remove(job)
            job.finish(captions)
            self._metrics.words.inc(sum(len(caption.words) for caption in captions.captions))
        self._beat = time.monotonic()
        return len(finished)

    def _retry(self, captioner: Captioner) -> int:
        """Caption the pictures of a step that failed one by one, each from its beginning."""
        jobs, self._running[captioner] = self._running[captioner].jobs, _Running(captioner.batch())
        for job in jobs:
            if job.done.cancelled():
                continue
            alone = captioner.batch()
            try:
                alone.add([job], [job.wanted])
                while not (found := alone.step()):
                    self._beat = time.monotonic()
                job.finish(alone.pop_results(found)[0])
            except Exception as error:
                job.fail(error)
            self._beat = time.monotonic()
        return len(jobs)
