"""The code of an image worker: it decodes images in its own process, so that one that hangs, grows or crashes costs only itself.

The protocol over the pipe: a task arrives; the number of pixels in the header is sent back; if it is admitted, the prepared
views are sent back.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from model import Box, ImageConfig, ImageError, ImageLimits, ImageView, decode_image, num_pixels, prepare, prepare_regions

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True, slots=True)
class ImageTask:
    """What a worker has to do."""

    data: bytes
    config: ImageConfig
    limits: ImageLimits
    thumbnail_edge: int  # pixels of the longer edge; 0: none
    regions: tuple[Box, ...]  # in pixels of the upright image; empty: one view of the whole image
    context: float  # share of a region's width and height that its view shows more on each side


def run_worker(pipe: Connection, memory: int) -> None:
    """Process tasks until the other end closes; `memory` is how many bytes more than now this process may take."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this process
    torch.set_num_threads(1)
    _limit_memory(memory)
    while True:
        try:
            task: ImageTask = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            size = (task.config.width, task.config.height)
            is_reduced = not (task.config.full_decode or task.regions)
            pipe.send(num_pixels(task.data, task.limits, min_size=size if is_reduced else None))
            if not pipe.recv():
                continue
            if task.regions:
                views = prepare_regions(task.data, task.config, task.regions, task.limits, context=task.context)
            else:
                views = [prepare(task.data, task.config, task.limits)]
            thumbnail = _thumbnail(task) if task.thumbnail_edge else None
            pipe.send(([_pack(view) for view in views], thumbnail))
        except ImageError as error:
            pipe.send(error)
        except MemoryError:
            pipe.send(ImageError("the image needs more memory than is allowed; send a smaller one"))


def unpack(packed: tuple[bytes, tuple[int, ...], ImageView]) -> ImageView:
    """Return a view as it was in the worker."""
    data, shape, view = packed
    return replace(view, pixels=torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape))


def _pack(view: ImageView) -> tuple[bytes, tuple[int, ...], ImageView]:
    """Return a view with its pixels as bytes: torch would send them through shared memory files."""
    pixels: Any = None
    return view.pixels.numpy().tobytes(), tuple(view.pixels.shape), replace(view, pixels=pixels)


def _thumbnail(task: ImageTask) -> tuple[tuple[int, int], bytes]:
    """Return size and bytes of the upright RGB image."""
    edge = task.thumbnail_edge
    image: Image.Image = decode_image(task.data, task.limits, min_size=(edge, edge)).upright()
    image.thumbnail((edge, edge))
    return image.size, image.tobytes()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(extra: int) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, now + extra))
