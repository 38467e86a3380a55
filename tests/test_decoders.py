"""Decoding in processes of their own: what hangs, bursts or dies costs itself alone, and nobody outlives the service."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import pytest
import torch

from model import ImageConfig, ImageError, ImageLimits, ImageTooLargeError, UnsupportedImageError, num_pixels, prepare
from service.runtime.admission import Admission, AdmissionLimits
from service.errors import ServiceError
from service.workers.pool import WorkerLimits, ImageWorkers

CONFIG = ImageConfig(height=24, width=32)


@pytest.fixture(scope="module")
def pool():
    found = ImageWorkers(WorkerLimits(workers=2, seconds=20.0, memory=400_000_000))
    found.start()
    yield found
    found.stop()


def room(**limits: int) -> Admission:
    return Admission(
        AdmissionLimits(**{"pictures": 96, "body_bytes": 400_000_000, "pixels": 96_000_000} | limits), lambda pictures: pictures
    )


def decode(pool, data, limits=None, admission=None):
    async def run():
        with (admission or room()).enter() as place:
            view, _ = await pool.decode(data, CONFIG, limits or ImageLimits(), place)
            return view

    return asyncio.run(run())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_what_it_is_in_this_process(pool, photo, format):
    data = photo(61, 47, format)
    there, here = decode(pool, data), prepare(data, CONFIG)
    assert torch.equal(there.pixels, here.pixels)
    assert (there.source_size, there.covers, there.format, there.orientation) == (
        here.source_size, here.covers, here.format, here.orientation,
    )  # fmt: skip


def test_errors_are_those_of_this_process(pool, photo):
    for data, kind in ((b"no picture", UnsupportedImageError), (photo()[:200], ImageError), (photo(64, 48)[:40], ImageError)):
        with pytest.raises(ImageError) as there:
            decode(pool, data)
        with pytest.raises(ImageError) as here:
            prepare(data, CONFIG)
        assert isinstance(there.value, kind)
        assert type(there.value) is type(here.value)
    with pytest.raises(ImageTooLargeError):
        decode(pool, photo(64, 48), ImageLimits(pixels=64 * 48 - 1))
    assert len(pool.processes) == 2, "an error costs no process"


def test_pixels_that_find_no_room_are_refused_before_they_are_decoded(pool, photo):
    admission = room(pixels=64 * 48 + 10)
    with admission.enter() as other:
        other.take("pixels", 100)
        with pytest.raises(ServiceError) as refused:
            decode(pool, photo(64, 48), admission=admission)
        assert refused.value.code == "overloaded"
    assert decode(pool, photo(64, 48), admission=admission).source_size == (64, 48)
    assert admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


@pytest.fixture
def lonely():
    """A pool of one decoder."""
    found = ImageWorkers(WorkerLimits(workers=1, seconds=1.0, memory=400_000_000))
    found.start()
    yield found
    found.stop()


def test_a_decoder_that_was_killed_while_it_waited_costs_nobody(lonely, photo):
    (process,) = lonely.processes
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert decode(lonely, photo()).source_size == (64, 48)


def test_a_decoder_that_is_killed_at_work_costs_its_picture(lonely, photo):
    (process,) = lonely.processes
    os.kill(process.pid, signal.SIGSTOP)  # it will not answer
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    with pytest.raises(ImageError, match="decoder was killed"):
        decode(lonely, photo())
    assert decode(lonely, photo()).source_size == (64, 48)


def test_a_client_that_leaves_before_its_size_is_known_holds_no_pixels(lonely, photo):
    """The decoder's thread goes on, and asks for room when nobody is there any more."""
    (process,) = lonely.processes
    admission = room()

    async def leave() -> None:
        with admission.enter() as place:
            work = asyncio.ensure_future(lonely.decode(photo(), CONFIG, ImageLimits(), place))
            await asyncio.sleep(0.2)
            work.cancel()
            await asyncio.wait([work])
        os.kill(process.pid, signal.SIGCONT)
        await asyncio.sleep(0.5)

    os.kill(process.pid, signal.SIGSTOP)
    asyncio.run(leave())
    assert admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}
    assert decode(lonely, photo()).source_size == (64, 48)


def test_a_decoder_that_hangs_is_killed_in_time(lonely, photo):
    pid = lonely.processes[0].pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"not decoded within 1.0 s"):
        decode(lonely, photo())
    assert time.monotonic() - started < 10
    assert not _lives(pid)
    assert decode(lonely, photo()).source_size == (64, 48)


def test_a_bomb_meets_the_memory_limit_and_the_decoder_lives(pool):
    def png(width: int, height: int) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        rows = zlib.compress(bytes(height * (4 * width + 1)), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    small = ImageWorkers(WorkerLimits(workers=1, seconds=20.0, memory=60_000_000))
    small.start()
    try:
        bomb = png(5_000, 4_000)  # 80 MB of pixels in some kB
        assert len(bomb) < 200_000
        with pytest.raises(ImageError, match=r"memory|killed"):
            decode(small, bomb)
        assert decode(small, png(8, 8)).source_size == (8, 8)
    finally:
        small.stop()


def test_a_size_is_read_without_decoding(photo):
    assert num_pixels(photo(64, 48)) == 64 * 48
    assert num_pixels(photo(64, 48)[:60]) == 64 * 48, "the rest is not looked at"
    with pytest.raises(ImageTooLargeError):
        num_pixels(photo(64, 48), ImageLimits(edge=63))


def test_decoders_die_with_their_service():
    code = (
        "import os, signal, sys\n"
        "from service.workers.pool import WorkerLimits, ImageWorkers\n"
        "if __name__ == '__main__':\n"
        "    pool = ImageWorkers(WorkerLimits(2, 1.5, 10**9))\n"
        "    pool.start()\n"
        "    print(*(process.pid for process in pool.processes), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    pids = [int(word) for word in found.stdout.split()]
    assert len(pids) == 2
    for _ in range(100):
        if not any(_lives(pid) for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("decoders outlive their service")


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
