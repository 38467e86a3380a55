"""What requests share: the model thread, the decoders, and who may come in. From received bytes to captions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from PIL import Image
from starlette.requests import Request

from model import Captioner, CaptionerError, CaptionRequest, CaptionResult, ImageError, ImageLimits, ImageView, Word
from service.admission import Admission, AdmissionLimits, Place
from service.checkpoints import load_captioner
from service.errors import Problem, option_problem
from service.fetch import Fetcher
from service.intake import BodyLimits, Received
from service.memory import give_back
from service.metrics import Metrics
from service.scheduler import Job, Scheduler, SchedulerLimits, Unserved
from service.settings import Settings
from service.workers import DecoderLimits, DecoderPool

_LOG = logging.getLogger(__name__)
_TRIM_SECONDS = 10.0
_WATCH_SECONDS = 0.25  # between two looks at the model thread

_T = TypeVar("_T")


class ClientLeft(Exception):
    """Nobody is there for the answer."""


Progress = Callable[[tuple[Word, ...]], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded picture."""

    view: ImageView
    photograph: Image.Image | None
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """A prepared picture, its captions, and the milliseconds that they took by part."""

    view: ImageView
    captions: CaptionResult
    timing: dict[str, float]
    photograph: Image.Image | None  # upright and small, where it was asked for


class Engine:
    """The captioners by name (the first is the default) and everything that computes."""

    def __init__(self, captioners: dict[str, Captioner], settings: Settings, limits: ImageLimits) -> None:
        self.captioners = captioners
        self.settings = settings
        self.limits = limits
        self.body_limits = BodyLimits(settings.max_body_bytes, settings.body_seconds)
        self.metrics = Metrics()
        self.scheduler = Scheduler(SchedulerLimits(settings.max_batch_rows, settings.encode_batch_size), self.metrics)
        self.metrics.watch_queue(lambda: self.scheduler.waiting)
        for name, captioner in captioners.items():
            self.metrics.tell_model(name, captioner)
        self.admission = Admission(
            AdmissionLimits(settings.max_queue_images, settings.max_queue_bytes, settings.max_queue_pixels),
            self.scheduler.rate.retry_after,
        )
        self.decoders = DecoderPool(DecoderLimits(settings.decoders, settings.image_decode_seconds, settings.image_decode_memory))
        self.fetcher = Fetcher(settings)
        self.writers = ThreadPoolExecutor(2, thread_name_prefix="write")  # of answers: large maps must not keep the loop
        self.draining = False
        self._loading = asyncio.Lock()

    def start(self) -> None:
        self.scheduler.start()
        self.decoders.start()

    def stop(self) -> None:
        """Finish what was accepted, then end threads and processes."""
        if self.scheduler.failed is None:
            self.scheduler.stop()
        self.decoders.stop()
        self.writers.shutdown()

    @property
    def trouble(self) -> str:
        """Why requests cannot be answered, "" where they can."""
        if self.scheduler.failed is not None:
            return "not_ready"
        return "draining" if self.draining else ""

    @property
    def alive(self) -> bool:
        """Whether the model thread gets on."""
        return self.scheduler.failed is None and self.scheduler.silent_for() < self.settings.watchdog_seconds

    async def watch(self, failed: Callable[[], None]) -> None:
        """Look at the model thread for ever; where it has died or hangs, fail what was accepted and call `failed` once."""
        loop = asyncio.get_running_loop()
        trimmed = loop.time()
        while self.alive:
            await asyncio.sleep(_WATCH_SECONDS)
            if loop.time() - trimmed > _TRIM_SECONDS:
                await loop.run_in_executor(None, give_back)
                trimmed = loop.time()
        silent = self.scheduler.silent_for()
        self.scheduler.abandon(self.scheduler.failed or TimeoutError(f"the model thread was silent for {silent:.0f} s"))
        failed()

    def captioner(self, name: str | None) -> tuple[str, Captioner]:
        chosen = name if name is not None else next(iter(self.captioners))
        if chosen not in self.captioners:
            raise Problem("unknown_model", f"model is {chosen!r}; the models are {', '.join(self.captioners)}")
        return chosen, self.captioners[chosen]

    @contextmanager
    def enter(self) -> Iterator[Place]:
        """Hold a place while the block runs. Raises Problem (503) where there is none, or nothing can be answered."""
        if self.scheduler.failed is not None:
            raise Problem("not_ready", "the model has failed and the service restarts; try again", headers={"Retry-After": "5"})
        with self.admission.enter() as place:
            yield place

    async def load(self, name: str, source: str) -> Captioner:
        """Put another checkpoint in the place of one: who has come already is answered by the old one. Raises Problem."""
        _, old = self.captioner(name)
        if self._loading.locked():
            raise Problem("overloaded", "another checkpoint is being loaded; try again", headers={"Retry-After": "10"})
        async with self._loading:
            try:
                new = await _in_thread(lambda: load_captioner(source, old.policy))
            except (CaptionerError, OSError, ValueError) as error:  # a file that cannot be read, or is no text
                raise option_problem("checkpoint", str(error)[:1000], json=True) from error
        self.captioners[name] = new
        self.metrics.tell_model(name, new)
        _LOG.info("loaded model=%s checkpoint=%r", name, source)
        return new

    async def prepare(self, captioner: Captioner, received: Received, place: Place, edge: int = 0) -> Prepared:
        """Decode a picture for a checkpoint, and for people too where an `edge` is given. Raises Problem."""
        loop = asyncio.get_running_loop()
        image = received.image or await self.fetcher.fetch(received.url, place)
        started = loop.time()
        try:
            view, shown = await self.decoders.decode(image, captioner.image_config, self.limits, place, edge)
        except ImageError as error:
            raise Problem(error.code, str(error)) from error
        return Prepared(view, shown, 1e3 * (loop.time() - started))

    async def caption(
        self, captioner: Captioner, prepared: Prepared, wanted: CaptionRequest, group: object, progress: Progress | None = None
    ) -> CaptionedImage:
        """Have a picture captioned; `progress` is told words in the loop as they become final.

        Raises Problem; TextError where a text does not fit the checkpoint.
        """
        loop = asyncio.get_running_loop()
        job = Job(captioner, wanted, group)
        if progress is not None:
            job.progress = partial(_tell, loop, progress)
        try:
            self.scheduler.submit(job)
            found = await asyncio.wrap_future(job.done)
        except Unserved as error:
            detail = "the model has failed and the service restarts; try again"
            raise Problem("not_ready", detail, headers={"Retry-After": "5"}) from error
        timing = {
            "decode_image_ms": prepared.milliseconds,
            "queue_ms": job.waited_ms,
            "encode_ms": found.timing.encode_ms,
            "decode_ms": found.timing.decode_ms,
            "maps_ms": found.timing.maps_ms,
        }
        return CaptionedImage(prepared.view, found, timing, prepared.photograph)

    def deadline(self) -> float:
        """Return when a request whose body has come must have been answered, in the loop's time."""
        return asyncio.get_running_loop().time() + self.settings.deadline_seconds

    async def in_time(self, request: Request, work: Coroutine[Any, Any, _T], deadline: float) -> _T:
        """Await work for as long as its client waits and its deadline allows; what is left of it is dropped.

        Raises Problem (504), ClientLeft.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_left(request))
        left = deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait({task, gone}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientLeft
            raise self.too_late()
        finally:
            for dropped in (task, gone):
                dropped.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await dropped

    def too_late(self) -> Problem:
        """Return the problem of a request whose deadline has come."""
        seconds = self.settings.deadline_seconds
        return Problem("deadline_exceeded", f"no answer was ready within {seconds:g} s; ask for fewer beams, or later")

    async def in_writer(self, work: Callable[[], _T]) -> _T:
        """Do what takes some milliseconds of an answer outside of the loop, which others wait for."""
        return await asyncio.get_running_loop().run_in_executor(self.writers, work)


def _in_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Do long work in a thread that the end of the process does not wait for."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return asyncio.wrap_future(done)


def _tell(loop: asyncio.AbstractEventLoop, progress: Progress, words: tuple[Word, ...]) -> None:
    loop.call_soon_threadsafe(progress, words)


async def _left(request: Request) -> None:
    """Return when the client has gone; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
