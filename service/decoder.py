"""What runs in a process of its own: decoding pictures, so that one which hangs, bursts or crashes costs itself alone.

A conversation: bytes come; the size that the header promises goes back; if that is let in, the prepared picture goes back.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from model import ImageError, ImageLimits, decode_image, num_pixels, prepare

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


def decode_pictures(line: Connection, memory: int) -> None:
    """Answer pictures until the other end closes; `memory` is how many bytes more than now this process may take."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this
    torch.set_num_threads(1)
    _limit_memory(memory)
    while True:
        try:
            data, config, limits, edge = line.recv()
        except (EOFError, OSError):
            return
        try:
            line.send(num_pixels(data, limits))
            if not line.recv():
                continue
            view = prepare(data, config, limits)
            pixels = view.pixels.numpy().tobytes()
            shown = _photograph(data, limits, edge) if edge else None
            line.send((pixels, tuple(view.pixels.shape), view.source_size, view.covers, view.format, view.orientation, shown))
        except ImageError as error:
            line.send(error)
        except MemoryError:
            line.send(ImageError("the picture needs more memory than is allowed; send a smaller one"))


def _photograph(data: bytes, limits: ImageLimits, edge: int) -> tuple[tuple[int, int], bytes]:
    """Return the upright photograph as RGB, its longer edge at most `edge`: size and bytes."""
    image = decode_image(data, limits, min_size=(edge, edge)).upright()
    image.thumbnail((edge, edge))
    return image.size, image.tobytes()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _limit_memory(more: int) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
