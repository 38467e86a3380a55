"""The pool of image workers: each decodes one image at a time, and one that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from PIL import Image

from model import Box, ImageConfig, ImageError, ImageLimits, ImageView
from service.workers.worker import ImageTask, run_worker, unpack


class PixelTicket(Protocol):
    """Admission of an image's pixels while it is being decoded."""

    def take(self, kind: str, amount: int) -> None: ...

    def give_back(self, kind: str) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How many workers there are, and what one image may take."""

    workers: int
    seconds: float
    memory: int  # bytes


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


def start_worker_server() -> None:
    """Start the process that workers are forked from, and return: it imports what they need while checkpoints load."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["service.workers.worker"])
    forkserver.ensure_running()


class ImageWorkers:
    """Decodes images in other processes. `prepare` belongs to an event loop."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._context = multiprocessing.get_context("forkserver")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="image")

    def start(self) -> None:
        start_worker_server()
        for _ in range(self._limits.workers):
            self._idle.put(self._new_worker())

    def stop(self) -> None:
        """End the processes; what they are decoding is lost."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._end(self._idle.get())

    @property
    def processes(self) -> list[BaseProcess]:
        """The processes that wait for work."""
        return [worker.process for worker in list(self._idle.queue)]

    async def prepare(
        self,
        data: bytes,
        config: ImageConfig,
        limits: ImageLimits,
        ticket: PixelTicket,
        thumbnail_edge: int = 0,
        regions: tuple[Box, ...] = (),
        context: float = 0.0,
    ) -> tuple[tuple[ImageView, ...], Image.Image | None]:
        """Return the views of an image, and a thumbnail of at most `thumbnail_edge` pixels if that is not 0.

        Raises ImageError, and ServiceError (503) if its pixels are not admitted.
        """
        loop = asyncio.get_running_loop()
        task = ImageTask(data, config, limits, thumbnail_edge, regions, context)

        async def take(pixels: int) -> None:
            ticket.take("pixels", pixels)

        def admit(pixels: int) -> None:  # in a worker's thread
            asyncio.run_coroutine_threadsafe(take(pixels), loop).result()

        try:
            return await loop.run_in_executor(self._threads, self._run, task, admit)
        finally:
            ticket.give_back("pixels")

    def _run(self, task: ImageTask, admit: Callable[[int], None]) -> tuple[tuple[ImageView, ...], Image.Image | None]:
        worker = self._idle.get()
        try:
            if not worker.process.is_alive():  # killed while it was idle: that is not this image's fault
                worker = self._replace(worker)
            worker.pipe.send(task)
            pixels = self._receive(worker)
            try:
                admit(pixels)
            except BaseException:
                worker.pipe.send(False)
                raise
            worker.pipe.send(True)
            packed, thumbnail = self._receive(worker)
        except (EOFError, OSError) as error:  # killed from outside, or by the system for its memory
            worker = self._replace(worker)
            raise ImageError("the image's worker was killed, probably for its memory; send a smaller image") from error
        except _Timeout as error:
            worker = self._replace(worker)
            raise ImageError(
                f"the image was not decoded within {self._limits.seconds} s; send a smaller or simpler one"
            ) from error
        finally:
            self._idle.put(worker)
        views = tuple(unpack(view) for view in packed)
        return views, None if thumbnail is None else Image.frombytes("RGB", *thumbnail)

    def _receive(self, worker: _Worker) -> Any:
        if not worker.pipe.poll(self._limits.seconds):
            raise _Timeout
        message = worker.pipe.recv()
        if isinstance(message, ImageError):
            raise message
        return message

    def _new_worker(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=run_worker, args=(theirs, self._limits.memory), name="image worker", daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, worker: _Worker) -> _Worker:
        new = self._new_worker()  # first: if no process can be started, the old one stays to be replaced the next time
        self._end(worker)
        return new

    def _end(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.pipe.close()
        worker.process.kill()
        worker.process.join()
        worker.process.close()


class _Timeout(Exception):
    """No message in time."""
