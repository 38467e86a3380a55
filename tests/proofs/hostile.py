"""Pictures of somebody who means no good: broken, lying and bursting files of every format."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections import Counter

from PIL import Image

from tests.proofs.load import Figures, memory, pictures, post
from tests.test_process import running

_MUTATIONS = 3_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_DECODE_SECONDS = 1.5  # the default


def mutations(_: float) -> Figures:
    """3,000 files, all six formats on: no 5xx but 503, each in time, memory back within 64 MB of what it was."""
    dice = random.Random(5)
    sound = {form: pictures(3, form) for form in _FORMATS}
    everything = [data for files in sound.values() for data in files]
    bombs = _bombs()
    with running(SIGHTLINE_FORMATS=",".join(_FORMATS), SIGHTLINE_THREADS="1") as (port, process, _):
        for number in range(50):
            post(port, "/v1/captions?maps=none&strategy=greedy", everything[number % len(everything)])
        before, kinds, slowest = memory(process.pid), Counter[str](), 0.0
        for number in range(_MUTATIONS):
            data = bombs[number // 100 % len(bombs)] if number % 100 == 0 else mutated(dice, everything)
            started = time.monotonic()
            status, _, _ = post(port, "/v1/captions?maps=none&strategy=greedy&max_words=3", data)
            slowest = max(slowest, time.monotonic() - started)
            kinds[str(status)] += 1
        after = memory(process.pid)
        whole = post(port, "/v1/captions", sound["JPEG"][0])[0]
    answered = {"200", "400", "413", "415", "503"}
    return {
        "answers": dict(sorted(kinds.items())),
        "slowest in s": round(slowest, 2),
        "resident MB before and after": [round(before), round(after)],
        "met": set(kinds) <= answered and slowest < _DECODE_SECONDS + 1 and after - before < 64 and whole == 200,
    }


def mutated(dice: random.Random, sound: list[bytes]) -> bytes:
    """Return a file that was sound before."""
    data = bytearray(dice.choice(sound))
    kind = dice.randrange(6)
    if kind == 0:  # cut off
        return bytes(data[: dice.randrange(len(data))])
    if kind == 1:  # bits flipped
        for _ in range(dice.randint(1, 30)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return bytes(data)
    if kind == 2:  # spliced
        other = dice.choice(sound)
        return bytes(data[: dice.randrange(len(data))]) + other[dice.randrange(len(other)) :]
    if kind == 3:  # the header lies
        for at in range(dice.randint(1, 60)):
            data[at] = dice.randrange(256) if dice.random() < 0.3 else data[at]
        return bytes(data)
    if kind == 4:
        return _with_exif(dice)
    junk = dice.randbytes(dice.randint(0, 3_000))
    if dice.random() < 0.3:
        junk = b"a\0\0" + zlib.compress(bytes(dice.choice([10, 2_000_000])))
    kinds = [b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL"]
    return _png(8, 8, bytes(8 * 25), extra=[(dice.choice(kinds), junk)])


def _with_exif(dice: random.Random) -> bytes:
    """Return a picture with EXIF that nobody's camera writes: orientations of all values and types, tags of junk, no EXIF."""
    exif = Image.Exif()
    exif[0x0112] = dice.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 65535])
    for _ in range(dice.randint(0, 5)):
        exif[dice.randrange(1, 65536)] = dice.choice(["text" * dice.randint(0, 50), dice.randrange(65536), dice.randbytes(9)])
    file, form = io.BytesIO(), dice.choice(["JPEG", "PNG", "WEBP"])
    drawn = Image.open(io.BytesIO(pictures(1)[0]))
    try:
        drawn.save(file, form, exif=exif, icc_profile=dice.randbytes(dice.randint(0, 300)))
    except (OSError, ValueError, TypeError, struct.error):  # not even Pillow writes that
        drawn.save(file, form, exif=dice.randbytes(dice.randint(0, 300)))
    return file.getvalue()


def _bombs() -> list[bytes]:
    """Return small files of large pictures: some within the limits of pixels, some that lie, some beyond."""
    found = [_png(width, height, bytes(height * (3 * width + 1))) for width, height in ((5_900, 4_000), (6_000, 6_000))]
    for form in ("WEBP", "TIFF", "GIF", "JPEG"):
        for size in ((4_800, 4_900), (5_200, 5_200)):
            file = io.BytesIO()
            options = {"compression": "tiff_lzw"} if form == "TIFF" else {}
            Image.new("L" if form == "GIF" else "RGB", size).save(file, form, **options)
            found.append(file.getvalue())
    found.append(_png(1, 1, b"\0\0\0\0", extra=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000)))]))
    found.append(_png(16_000, 1_400, zlib.decompress(zlib.compress(bytes(1_400 * 48_001)))))
    return found


def _png(width: int, height: int, rows: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(kind, data) for kind, data in extra or [])
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
