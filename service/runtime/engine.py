"""The engine: what requests share, from received bytes to captions: admission, image workers, model thread, deadlines.

It knows nothing of any HTTP API: dialects (service/http) parse requests, call it, and render what it returns or raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from PIL import Image

from model import (
    ALL_FORMATS,
    Box,
    Captioner,
    CaptionerError,
    CaptionRequest,
    CaptionResult,
    CheckpointError,
    ConfigError,
    ImageError,
    ImageLimits,
    ImageView,
    RegionError,
    Word,
    device_memory,
    is_out_of_memory,
    missing_support,
)
from service.errors import ServiceError, option_error, retry_error
from service.memory import trim_memory
from service.metrics import Metrics
from service.runtime.admission import Admission, AdmissionLimits, Ticket
from service.runtime.checkpoints import load_captioner
from service.runtime.fetch import Fetcher
from service.runtime.jobs import Job
from service.runtime.scheduler import Scheduler, SchedulerLimits, Unserved
from service.settings import Settings
from service.workers import ImageWorkers, WorkerLimits

_LOG = logging.getLogger(__name__)
_TRIM_SECONDS = 10.0
_WATCH_SECONDS = 0.25  # between two checks of the model thread
_RESTART_SECONDS = 5  # Retry-After while the process restarts

_LOAD_ERRORS: dict[type[Exception], str] = {  # for an administrator, without names of files
    ConfigError: "a value of its configuration is invalid or not supported",
    CheckpointError: "it is missing, incomplete, of another kind, or does not fit its configuration",
    OSError: "a file of it is missing or cannot be read",
    Exception: "a file of it is damaged",
}

_T = TypeVar("_T")


class ClientLeft(Exception):
    """The client has closed its connection: no response is needed."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded image: the encoder's view of it, or of each requested region, and a thumbnail if one was requested."""

    views: tuple[ImageView, ...]
    thumbnail: Image.Image | None  # upright RGB
    decode_ms: float
    is_cropped: bool = False  # the views are those of regions

    @property
    def view(self) -> ImageView:
        """The view of the whole image; of one that is cropped only its size and format can be used."""
        first = self.views[0]
        return replace(first, covers=Box(0, 0, *first.source_size)) if self.is_cropped else first


class Engine:
    """The captioners by name (the first is the default) and everything that computes."""

    def __init__(self, captioners: dict[str, Captioner], settings: Settings) -> None:
        """Raises ConfigError if the settings name an unknown image format or an invalid network."""
        self.captioners = captioners
        self.settings = settings
        self.image_limits = _image_limits(settings)
        self.metrics = Metrics()
        self.scheduler = Scheduler(SchedulerLimits(settings.max_batch_rows, settings.encode_batch_size), self.metrics)
        self.metrics.watch_queue(lambda: self.scheduler.num_waiting)
        self.metrics.watch_device(self._device_memory)
        for name, captioner in captioners.items():
            self.metrics.set_model(name, captioner)
        self.admission = Admission(
            AdmissionLimits(settings.max_queue_images, settings.max_queue_bytes, settings.max_queue_pixels),
            self.scheduler.rate.retry_after,
        )
        self.workers = ImageWorkers(
            WorkerLimits(settings.image_workers, settings.image_decode_seconds, settings.image_decode_memory)
        )
        self.fetcher = Fetcher(settings)
        self.writers = ThreadPoolExecutor(2, thread_name_prefix="write")  # of responses: large maps must not block the loop
        self.is_draining = False
        self._loading = asyncio.Lock()

    def start(self) -> None:
        self.scheduler.start()
        self.workers.start()

    def stop(self) -> None:
        """Finish what was accepted, then end threads and processes."""
        if self.scheduler.error is None:
            self.scheduler.stop()
        self.workers.stop()
        self.writers.shutdown()

    @property
    def unready_code(self) -> str:
        """The error code of why requests cannot be answered, "" if they can."""
        if self.scheduler.error is not None:
            return "not_ready"
        return "draining" if self.is_draining else ""

    @property
    def is_alive(self) -> bool:
        """Whether the model thread makes progress."""
        is_stuck = self.scheduler.seconds_since_progress() >= self.settings.watchdog_seconds
        return self.scheduler.error is None and not is_stuck

    async def watch(self, on_failure: Callable[[], None]) -> None:
        """Check the model thread until it has died or hangs; then fail what was accepted and call `on_failure` once."""
        loop = asyncio.get_running_loop()
        trimmed = loop.time()
        while self.is_alive:
            await asyncio.sleep(_WATCH_SECONDS)
            if loop.time() - trimmed > _TRIM_SECONDS:
                await loop.run_in_executor(None, trim_memory)
                trimmed = loop.time()
        seconds = self.scheduler.seconds_since_progress()
        self.scheduler.fail_all(self.scheduler.error or TimeoutError(f"the model thread made no progress for {seconds:.0f} s"))
        on_failure()

    def captioner(self, name: str | None) -> tuple[str, Captioner]:
        """Return a checkpoint by name, the default for None. Raises ServiceError (404)."""
        chosen = name if name is not None else next(iter(self.captioners))
        if chosen not in self.captioners:
            raise ServiceError("unknown_model", f"model is {chosen!r}; the models are {', '.join(self.captioners)}")
        return chosen, self.captioners[chosen]

    @contextmanager
    def admit(self, client: str) -> Iterator[Ticket]:
        """Give a request a ticket while the block runs. Raises ServiceError (503) if nothing can be answered."""
        if self.scheduler.error is not None:
            raise self._failed()
        with self.admission.open(client) as ticket:
            yield ticket

    async def load(self, name: str, source: str) -> Captioner:
        """Replace a checkpoint; requests that were accepted before are answered by the old one. Raises ServiceError."""
        _, old = self.captioner(name)
        if self._loading.locked():
            raise retry_error("overloaded", "another checkpoint is being loaded; try again", 10)
        async with self._loading:
            try:
                new = await _in_thread(lambda: load_captioner(source, old.policy))
            except (CaptionerError, OSError, ValueError) as error:  # a file that cannot be read, or is not text
                # The error may name folders of this machine: for the log only.
                _LOG.warning("not loaded model=%s checkpoint=%r", name, source, exc_info=error)
                kind = next(text for kind, text in _LOAD_ERRORS.items() if isinstance(error, kind))
                detail = f"checkpoint is {source[:200]!r}, which cannot be loaded: {kind}; the service's log says why"
                raise option_error("checkpoint", detail) from error
        self.captioners[name] = new
        self.metrics.set_model(name, new)
        _LOG.info("loaded model=%s checkpoint=%r", name, source)
        return new

    async def prepare(
        self,
        captioner: Captioner,
        image: bytes | str,
        ticket: Ticket,
        *,
        thumbnail_edge: int = 0,
        regions: tuple[Box, ...] = (),
        context: float = 0.0,
    ) -> PreparedImage:
        """Decode an image, its bytes or an https URL; with a thumbnail of at most that edge, and a view per region.

        `context` is the share of a region's width and height that its view shows more on each side.

        Raises ServiceError; RegionError for a region outside the image.
        """
        loop = asyncio.get_running_loop()
        data = await self.fetcher.fetch(image, ticket) if isinstance(image, str) else image
        started = loop.time()
        try:
            views, thumbnail = await self.workers.prepare(
                data, captioner.image_config, self.image_limits, ticket, thumbnail_edge, regions, context
            )
        except RegionError:
            raise
        except ImageError as error:
            raise ServiceError(error.code, str(error)) from error
        return PreparedImage(views, thumbnail, 1e3 * (loop.time() - started), bool(regions))

    async def caption(
        self,
        captioner: Captioner,
        prepared: PreparedImage,
        request: CaptionRequest,
        group: object,
        on_words: Callable[[tuple[Word, ...]], None] | None = None,
    ) -> CaptionResult:
        """Caption an image; `on_words` is called in the loop with words as they become final.

        Raises ServiceError; TextError if a text does not fit the checkpoint.
        """
        job = Job(captioner, request, group)
        if on_words is not None:
            job.on_words = _in_loop(asyncio.get_running_loop(), on_words)
        try:
            self.scheduler.submit(job)
            result = await asyncio.wrap_future(job.future)
        except Unserved as error:
            raise self._failed() from error
        except ConfigError as error:  # it begins with the name of the option
            raise option_error(str(error).partition(" ")[0], str(error)) from error
        except RuntimeError as error:
            if is_out_of_memory(error):
                seconds = self.scheduler.rate.retry_after(self.scheduler.num_active + 1)
                detail = f"the device has no memory for this request now; try again in {seconds} s, or use fewer beams"
                raise retry_error("overloaded", detail, seconds) from error
            raise
        timing = replace(result.timing, decode_image_ms=prepared.decode_ms, queue_ms=job.queue_ms)
        return replace(result, timing=timing)

    def deadline(self) -> float:
        """Return when a request whose body has arrived must be answered, in the loop's time."""
        return asyncio.get_running_loop().time() + self.settings.deadline_seconds

    async def within(self, deadline: float, disconnected: Awaitable[None], work: Coroutine[Any, Any, _T]) -> _T:
        """Await work until its deadline or until its client disconnects; what is left of it is cancelled.

        Raises ServiceError (504), ClientLeft.
        """
        task = asyncio.ensure_future(work)
        left = asyncio.ensure_future(disconnected)
        seconds = deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait({task, left}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if left.done():
                raise ClientLeft
            raise self.deadline_error()
        finally:
            for future in (task, left):
                future.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await future

    def deadline_error(self) -> ServiceError:
        seconds = self.settings.deadline_seconds
        return ServiceError("deadline_exceeded", f"no response was ready within {seconds:g} s; use fewer beams, or try later")

    async def in_writer(self, work: Callable[[], _T]) -> _T:
        """Run what takes some milliseconds of a response in a thread, so that the loop is not blocked."""
        return await asyncio.get_running_loop().run_in_executor(self.writers, work)

    def _failed(self) -> ServiceError:
        return retry_error("not_ready", "the model has failed and the service restarts; try again", _RESTART_SECONDS)

    def _device_memory(self) -> dict[str, int]:
        return device_memory(next(iter(self.captioners.values())).runtime.device)


def _in_loop(loop: asyncio.AbstractEventLoop, on_words: Callable[[tuple[Word, ...]], None]) -> Callable[[tuple[Word, ...]], None]:
    """Return a function for the model thread that calls `on_words` in the loop."""

    def call(words: tuple[Word, ...]) -> None:
        loop.call_soon_threadsafe(on_words, words)

    return call


def _image_limits(settings: Settings) -> ImageLimits:
    formats = tuple(name.strip().upper() for name in settings.formats.split(",") if name.strip())
    if unknown := [name for name in formats if name not in ALL_FORMATS]:
        raise ConfigError(f"formats contains {', '.join(unknown)}; supported are {', '.join(ALL_FORMATS)}")
    if "HEIC" in formats and (reason := missing_support("HEIC")):
        raise ConfigError(f"formats contains HEIC; {reason}")
    return ImageLimits(
        pixels=settings.max_pixels, edge=settings.max_edge, formats=formats, accept_truncated=settings.accept_truncated
    )


def _in_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Run long work in a thread that does not delay the end of the process."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return asyncio.wrap_future(future)
