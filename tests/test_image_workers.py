"""Image workers: an image that hangs, grows or kills its worker costs only itself, and no worker outlives the service."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib

import pytest
import torch
from PIL import ExifTags, Image

from model import (
    Box,
    ImageConfig,
    ImageError,
    ImageLimits,
    ImageTooLargeError,
    UnsupportedImageError,
    num_pixels,
    prepare,
    prepare_regions,
)
from service.errors import ServiceError
from service.runtime import Admission, AdmissionLimits
from service.workers import ImageWorkers, WorkerLimits
from tests.helpers import wait_until

CONFIG = ImageConfig(height=24, width=32)
EMPTY = {"images": 0, "body_bytes": 0, "pixels": 0}


@pytest.fixture(scope="module")
def workers():
    pool = ImageWorkers(WorkerLimits(workers=2, seconds=60.0, memory=400_000_000))
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def one_worker():
    pool = ImageWorkers(WorkerLimits(workers=1, seconds=60.0, memory=400_000_000))
    pool.start()
    yield pool
    pool.stop()


def make_admission(pixels: int = 96_000_000) -> Admission:
    return Admission(AdmissionLimits(images=96, body_bytes=400_000_000, pixels=pixels), lambda images: images)


def decode(workers, data, limits=None, admission=None, **options):
    """Return the views and the thumbnail of an image."""

    async def run():
        with (admission or make_admission()).open() as ticket:
            return await workers.prepare(data, CONFIG, limits or ImageLimits(), ticket, **options)

    return asyncio.run(run())


def decode_view(workers, data, limits=None, admission=None):
    ((view,), _) = decode(workers, data, limits, admission)
    return view


def assert_equal_views(one, other):
    assert torch.equal(one.pixels, other.pixels)
    for name in ("source_size", "covers", "format", "orientation"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_view_from_a_worker_equals_that_of_this_process(workers, photo, format):
    data = photo(61, 47, format)
    assert_equal_views(decode_view(workers, data), prepare(data, CONFIG))


def test_views_of_regions_equal_those_of_this_process(workers, photo):
    data, regions = photo(61, 47), (Box(0, 0, 30, 20), Box(10, 5, 61, 47))
    views, thumbnail = decode(workers, data, regions=regions)
    assert thumbnail is None
    for view, expected in zip(views, prepare_regions(data, CONFIG, regions, ImageLimits()), strict=True):
        assert_equal_views(view, expected)


def test_a_thumbnail_is_upright_and_no_larger_than_requested(workers, photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turned by 90 degrees
    (view,), thumbnail = decode(workers, photo(60, 40, "JPEG", exif=exif), thumbnail_edge=30)
    assert view.orientation == 6
    assert (thumbnail.size, thumbnail.mode) == ((20, 30), "RGB")


def test_errors_are_those_of_this_process(workers, photo):
    for data, kind in ((b"no image", UnsupportedImageError), (photo()[:200], ImageError), (photo(64, 48)[:40], ImageError)):
        with pytest.raises(ImageError) as in_worker:
            decode_view(workers, data)
        with pytest.raises(ImageError) as here:
            prepare(data, CONFIG)
        assert isinstance(in_worker.value, kind)
        assert type(in_worker.value) is type(here.value)
    with pytest.raises(ImageTooLargeError):
        decode_view(workers, photo(64, 48), ImageLimits(pixels=64 * 48 - 1))
    assert len(workers.processes) == 2, "an error costs no worker"


def test_an_error_message_of_an_image_contains_no_memory_address(workers, photo):
    with pytest.raises(ImageError) as error:
        decode_view(workers, photo(64, 48)[:40])
    assert " at 0x" not in str(error.value)


def test_pixels_above_the_limit_are_refused_before_they_are_decoded(workers, photo):
    admission = make_admission(pixels=64 * 48 + 10)
    with admission.open() as other:
        other.take("pixels", 100)
        with pytest.raises(ServiceError) as refused:
            decode_view(workers, photo(64, 48), admission=admission)
        assert refused.value.code == "overloaded"
    assert decode_view(workers, photo(64, 48), admission=admission).source_size == (64, 48)
    assert admission.used == EMPTY


def test_a_worker_that_is_killed_while_idle_costs_no_image(one_worker, photo):
    (process,) = one_worker.processes
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert decode_view(one_worker, photo()).source_size == (64, 48)


def test_a_worker_that_is_killed_while_it_decodes_costs_that_image(one_worker, photo):
    (process,) = one_worker.processes
    os.kill(process.pid, signal.SIGSTOP)  # it will not answer

    def kill_when_busy() -> None:
        wait_until(lambda: not one_worker.processes)
        os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    with pytest.raises(ImageError, match="was killed"):
        decode_view(one_worker, photo())
    killer.join()
    assert decode_view(one_worker, photo()).source_size == (64, 48)


def test_a_client_that_leaves_before_the_size_is_known_takes_no_pixels(one_worker, photo):
    """The thread that talks to the worker goes on, and asks for pixels when the request has ended."""
    (process,) = one_worker.processes
    admission = make_admission()

    async def wait_in_loop(condition) -> None:
        await asyncio.to_thread(wait_until, condition)

    async def leave() -> None:
        with admission.open() as ticket:
            work = asyncio.ensure_future(one_worker.prepare(photo(), CONFIG, ImageLimits(), ticket))
            await wait_in_loop(lambda: not one_worker.processes)  # it has the image
            work.cancel()
            await asyncio.wait([work])
        os.kill(process.pid, signal.SIGCONT)
        await wait_in_loop(lambda: one_worker.processes)

    os.kill(process.pid, signal.SIGSTOP)
    asyncio.run(leave())
    assert admission.used == EMPTY
    assert decode_view(one_worker, photo()).source_size == (64, 48)


def test_a_worker_that_hangs_is_killed_and_replaced(photo):
    pool = ImageWorkers(WorkerLimits(workers=1, seconds=3.0, memory=400_000_000))
    pool.start()
    try:
        pid = pool.processes[0].pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ImageError, match=r"not decoded within 3.0 s"):
            decode_view(pool, photo())
        assert not is_running(pid)
        assert decode_view(pool, photo()).source_size == (64, 48)
    finally:
        pool.stop()


def test_an_image_that_needs_too_much_memory_fails_and_the_worker_lives(photo):
    pool = ImageWorkers(WorkerLimits(workers=1, seconds=60.0, memory=60_000_000))
    pool.start()
    try:
        bomb = empty_png(5_000, 4_000)  # 80 MB of pixels in some kB
        assert len(bomb) < 200_000
        with pytest.raises(ImageError, match=r"memory|killed"):
            decode_view(pool, bomb)
        assert decode_view(pool, empty_png(8, 8)).source_size == (8, 8)
    finally:
        pool.stop()


def empty_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    rows = zlib.compress(bytes(height * (4 * width + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_number_of_pixels_is_read_without_decoding(photo):
    assert num_pixels(photo(64, 48)) == 64 * 48
    assert num_pixels(photo(64, 48)[:60]) == 64 * 48, "what follows the header is not read"
    with pytest.raises(ImageTooLargeError):
        num_pixels(photo(64, 48), ImageLimits(edge=63))


def test_workers_die_with_their_service():
    code = (
        "import os, signal\n"
        "from service.workers import ImageWorkers, WorkerLimits\n"
        "if __name__ == '__main__':\n"
        "    workers = ImageWorkers(WorkerLimits(2, 1.5, 10**9))\n"
        "    workers.start()\n"
        "    print(*(process.pid for process in workers.processes), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    service = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    pids = [int(word) for word in service.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
