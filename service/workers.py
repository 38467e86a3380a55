"""The processes that decode pictures: each does one at a time, and one that hangs or dies is replaced."""

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
from typing import Any

import torch
from PIL import Image

from model import ImageConfig, ImageError, ImageLimits, ImageView
from service.admission import Place
from service.decoder import decode_pictures


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """What one picture's decoding may take."""

    workers: int
    seconds: float
    memory: int  # bytes


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    line: Connection


def start_decoder_server() -> None:
    """Start the process that decoders are forked from, and return: it imports what they need while others load."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["service.decoder"])
    forkserver.ensure_running()


class DecoderPool:
    """Decodes pictures outside of this process. `decode` belongs to an event loop."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._context = multiprocessing.get_context("forkserver")
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="decode")

    def start(self) -> None:
        start_decoder_server()
        for _ in range(self._limits.workers):
            self._free.put(self._hired())

    def stop(self) -> None:
        """End the processes; what they are doing is lost."""
        self._threads.shutdown(cancel_futures=True)
        while not self._free.empty():
            self._dismiss(self._free.get())

    @property
    def processes(self) -> list[BaseProcess]:
        """The processes that wait for work."""
        return [worker.process for worker in list(self._free.queue)]

    async def decode(
        self, data: bytes, config: ImageConfig, limits: ImageLimits, place: Place, edge: int = 0
    ) -> tuple[ImageView, Image.Image | None]:
        """Prepare a picture, and return it for people too where an `edge` is given, at most so many pixels long.

        Raises ImageError, and Problem (503) where its pixels find no room.
        """
        loop = asyncio.get_running_loop()

        def admit(pixels: int) -> None:
            asyncio.run_coroutine_threadsafe(_take(place, pixels), loop).result()

        try:
            return await loop.run_in_executor(self._threads, self._converse, (data, config, limits, edge), admit)
        finally:
            place.give_back("pixels")

    def _converse(self, asked: tuple[Any, ...], admit: Callable[[int], None]) -> tuple[ImageView, Image.Image | None]:
        worker = self._free.get()
        try:
            if not worker.process.is_alive():  # killed while it had nothing to do: that is no picture's fault
                worker = self._replaced(worker)
            worker.line.send(asked)
            pixels = self._heard(worker)
            try:
                admit(pixels)
            except BaseException:
                worker.line.send(False)
                raise
            worker.line.send(True)
            packed, shape, size, covers, name, orientation, shown = self._heard(worker)
        except (EOFError, OSError) as error:  # killed from outside, or by the system for its memory
            worker = self._replaced(worker)
            raise ImageError("the picture's decoder was killed, most likely for its memory; send a smaller picture") from error
        except _TooSlow as error:
            worker = self._replaced(worker)
            raise ImageError(
                f"the picture was not decoded within {self._limits.seconds} s; send a smaller or simpler one"
            ) from error
        finally:
            self._free.put(worker)
        tensor = torch.frombuffer(bytearray(packed), dtype=torch.float32).reshape(shape)
        photograph = None if shown is None else Image.frombytes("RGB", *shown)
        return ImageView(tensor, size, covers, name, orientation), photograph

    def _heard(self, worker: _Worker) -> Any:
        if not worker.line.poll(self._limits.seconds):
            raise _TooSlow
        answer = worker.line.recv()
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def _hired(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=decode_pictures, args=(theirs, self._limits.memory), name="decoder", daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replaced(self, worker: _Worker) -> _Worker:
        hired = self._hired()  # first: where no process can be made, the old one stays to be replaced the next time
        self._dismiss(worker)
        return hired

    def _dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.line.close()
        worker.process.kill()
        worker.process.join()
        worker.process.close()


class _TooSlow(Exception):
    """No answer in time."""


async def _take(place: Place, pixels: int) -> None:
    place.take("pixels", pixels)
