"""Hostile images: damaged files, false headers and decompression bombs of every format."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections import Counter

from PIL import Image

from tests.proofs.load import Figures, memory, post, scene_images
from tests.test_process import running

_MUTATIONS = 3_000
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_DECODE_SECONDS = 5.0  # the default of image_decode_seconds


def mutations(_seconds: float) -> Figures:
    """3,000 files, all seven formats on: no 5xx but 503, each in time, memory within 64 MB of what it was."""
    rng = random.Random(5)
    valid = {format: scene_images(3, format) for format in _FORMATS}
    all_valid = [data for files in valid.values() for data in files]
    bombs = _bombs()
    with running(SIGHTLINE_FORMATS=",".join(_FORMATS), SIGHTLINE_THREADS="1") as (port, process, _):
        for number in range(50):
            post(port, "/v1/captions?maps=none&strategy=greedy", all_valid[number % len(all_valid)])
        before, statuses, slowest = memory(process.pid), Counter[str](), 0.0
        for number in range(_MUTATIONS):
            data = bombs[number // 100 % len(bombs)] if number % 100 == 0 else mutated(rng, all_valid)
            started = time.monotonic()
            status = post(port, "/v1/captions?maps=none&strategy=greedy&max_words=3", data)[0]
            slowest = max(slowest, time.monotonic() - started)
            statuses[str(status)] += 1
        after = memory(process.pid)
        afterwards = post(port, "/v1/captions", valid["JPEG"][0])[0]
    allowed = {"200", "400", "413", "415", "503"}
    return {
        "responses": dict(sorted(statuses.items())),
        "slowest in s": round(slowest, 2),
        "resident MB before and after": [round(before), round(after)],
        "met": set(statuses) <= allowed and slowest < _DECODE_SECONDS + 1 and after - before < 64 and afterwards == 200,
    }


def mutated(rng: random.Random, valid: list[bytes]) -> bytes:
    """Return a valid file after some damage, or a small file with unusual metadata."""
    data = bytearray(rng.choice(valid))
    kind = rng.randrange(6)
    if kind == 0:  # truncated
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:  # bits flipped
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == 2:  # spliced
        other = rng.choice(valid)
        return bytes(data[: rng.randrange(len(data))]) + other[rng.randrange(len(other)) :]
    if kind == 3:  # false header
        for index in range(rng.randint(1, 60)):
            data[index] = rng.randrange(256) if rng.random() < 0.3 else data[index]
        return bytes(data)
    if kind == 4:
        return _with_exif(rng)
    junk = rng.randbytes(rng.randint(0, 3_000))
    if rng.random() < 0.3:
        junk = b"a\0\0" + zlib.compress(bytes(rng.choice([10, 2_000_000])))
    chunks = [b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL"]
    return _png(8, 8, bytes(8 * 25), extra=[(rng.choice(chunks), junk)])


def _with_exif(rng: random.Random) -> bytes:
    """Return an image with EXIF that no camera writes: orientations of all values and types, junk tags, or no EXIF at all."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 65535])
    for _ in range(rng.randint(0, 5)):
        exif[rng.randrange(1, 65536)] = rng.choice(["text" * rng.randint(0, 50), rng.randrange(65536), rng.randbytes(9)])
    file, format = io.BytesIO(), rng.choice(["JPEG", "PNG", "WEBP"])
    image = Image.open(io.BytesIO(scene_images(1)[0]))
    try:
        image.save(file, format, exif=exif, icc_profile=rng.randbytes(rng.randint(0, 300)))
    except (OSError, ValueError, TypeError, struct.error):  # Pillow refuses to write such EXIF
        image.save(file, format, exif=rng.randbytes(rng.randint(0, 300)))
    return file.getvalue()


def _bombs() -> list[bytes]:
    """Return small files of large images: some within the limits of pixels, some with false headers, some above the limits."""
    files = [_png(width, height, bytes(height * (3 * width + 1))) for width, height in ((5_900, 4_000), (6_000, 6_000))]
    for format in ("WEBP", "TIFF", "GIF", "JPEG"):
        for size in ((4_800, 4_900), (5_200, 5_200)):
            file = io.BytesIO()
            options = {"compression": "tiff_lzw"} if format == "TIFF" else {}
            Image.new("L" if format == "GIF" else "RGB", size).save(file, format, **options)
            files.append(file.getvalue())
    files.append(_png(1, 1, b"\0\0\0\0", extra=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000)))]))
    files.append(_png(16_000, 1_400, bytes(1_400 * 48_001)))
    return files


def _png(width: int, height: int, rows: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(kind, data) for kind, data in extra or [])
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
