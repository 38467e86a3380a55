"""Longer proofs of the service, on loopback and bounded: `make prove-service`. Prints a table.

Load comes from threads of this process; the service is a process of its own with the embedded checkpoint.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from corpus import draw_scene
from model import Captioner, prepare, use_threads
from tests.test_process import running

ROOT = Path(__file__).parent.parent
OPTIONS = ["", "?strategy=greedy", "?beams=5", "?strategy=sample&seed=7", "?beams=2&count=2&max_words=8"]


def pictures(count: int, format: str = "JPEG") -> list[bytes]:
    """Return drawn scenes as files."""
    found = []
    for number in range(count):
        file = io.BytesIO()
        draw_scene(77, number).paint().save(file, format)
        found.append(file.getvalue())
    return found


def post(port: int, path: str, data: bytes, seconds: float = 90.0) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; status 0 where the connection failed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, data)
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException):
        return 0, b"", {}
    finally:
        connection.close()


def load(clients: int, seconds: float, call: Callable[[int, random.Random], object]) -> list[tuple[float, object]]:
    """Let so many threads call as fast as they are answered; returns (seconds, result) of every call."""
    results: list[tuple[float, object]] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < end:
            started = time.monotonic()
            found = call(number, dice)
            results.append((time.monotonic() - started, found))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def memory(process: subprocess.Popen[str]) -> float:
    """Return the resident megabytes of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def equal_answers(seconds: float) -> dict[str, object]:
    """64 clients of mixed options: every answer is the one that its request gets alone."""
    files = pictures(8)
    with running(SIGHTLINE_DTYPE="float32", SIGHTLINE_THREADS="2") as (port, _, _):
        every = [(file, option) for file in range(8) for option in range(len(OPTIONS))]
        alone = {key: _plain(post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])[1]) for key in every}

        def call(_: int, dice: random.Random) -> bool | int:
            key = (dice.randrange(8), dice.randrange(len(OPTIONS)))
            status, body, _ = post(port, "/v1/captions" + OPTIONS[key[1]], files[key[0]])
            return status if status != 200 else _same(_plain(body), alone[key])

        found = load(64, seconds, call)
    times = sorted(taken for taken, _ in found)
    kinds = Counter(str(result) for _, result in found)
    return {
        "requests": len(found),
        "answers": dict(kinds),
        "p50, p95, p99 in s": [round(times[int(len(times) * share)], 2) for share in (0.5, 0.95, 0.99)],
        "met": set(kinds) == {"True"},
    }


def _plain(body: bytes) -> list[tuple[str, float]]:
    return [(caption["text"], caption["log_probability"]) for caption in json.loads(body)["captions"]]


def _same(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    """Equal texts and log-probabilities within 1e-4; captions that score within that may change places."""
    close = all(abs(a[1] - b[1]) < 1e-4 for a, b in zip(one, other, strict=True))
    return close and sorted(text for text, _ in one) == sorted(text for text, _ in other)


def batching(seconds: float) -> dict[str, object]:
    """Captions a second of 1 and 32 clients, and of the Captioner alone fed the same bytes, eight at a time."""
    files = pictures(16)
    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0") as (port, _, _):
        call = lambda number, dice: post(port, "/v1/captions", files[dice.randrange(16)])[0]  # noqa: E731
        load(8, 3, call)
        rates = {}
        for clients in (1, 32):
            before = sum(os.times()[:2])
            found = load(clients, seconds, call)
            assert {status for _, status in found} == {200}
            rates[clients] = len(found) / seconds
            rates[f"load generator's share of a core, {clients} clients"] = round((sum(os.times()[:2]) - before) / seconds, 2)
    use_threads()
    captioner = Captioner.load()
    count, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        views = [prepare(files[(count + at) % 16], captioner.image_config) for at in range(8)]
        captioner.caption(views)
        count += 8
    direct = count / (time.monotonic() - started)
    return {
        "captions a second of 1 and 32 clients": [round(rates[1], 1), round(rates[32], 1)],
        "of the Captioner in batches of 8": round(direct, 1),
        "32 clients over 1": round(rates[32] / rates[1], 2),
        "of the Captioner's rate": round(rates[32] / direct, 2),
        "load generator's cores": [value for name, value in rates.items() if isinstance(name, str)],
        "met": rates[32] >= 3 * rates[1] and rates[32] >= 0.7 * direct,
    }


def overload(seconds: float) -> dict[str, object]:
    """Ten times what is served: only 200 and 503 with Retry-After, inside the deadline, memory flat; half hang up."""
    files = pictures(8)
    with running(SIGHTLINE_DTYPE="auto", SIGHTLINE_THREADS="0", SIGHTLINE_QUEUE_IMAGES="32") as (port, process, _):
        load(8, 3, lambda number, dice: post(port, "/v1/captions", files[0])[0])
        before = memory(process)

        def call(number: int, dice: random.Random) -> object:
            leaves = number % 2 == 1
            status, _, headers = post(port, "/v1/captions", files[dice.randrange(8)], dice.uniform(0.02, 0.4) if leaves else 90)
            if leaves and status == 0:
                return "left"
            if status == 503:
                time.sleep(0.05)  # else the load is of refusals alone
                return "503 with Retry-After" if int(headers["retry-after"]) >= 1 else "503 without"
            return status

        found = load(160, seconds, call)
        time.sleep(2)
        after = memory(process)
        whole = post(port, "/v1/captions", files[0])[0]
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=20)
    answered = sorted(taken for taken, kind in found if kind == 200)
    kinds = Counter(str(kind) for _, kind in found)
    return {
        "answers": dict(kinds),
        "slowest accepted in s": round(answered[-1], 1),
        "resident MB before and after": [round(before), round(after)],
        "afterwards": [whole, status],
        "met": set(kinds) <= {"200", "503 with Retry-After", "left"} and answered[-1] < 30 and whole == 200 and status == 0,
    }


def hostile(count: int) -> dict[str, object]:
    """Broken, spliced and lying files of all six formats: no 5xx but 503, each answered in time, memory back where it was."""
    dice = random.Random(5)
    sound = {form: pictures(3, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
    everything = [data for files in sound.values() for data in files]
    with running(SIGHTLINE_FORMATS="JPEG,PNG,WEBP,GIF,BMP,TIFF", SIGHTLINE_THREADS="1") as (port, process, _):
        for number in range(50):
            post(port, "/v1/captions?maps=none&strategy=greedy", everything[number % len(everything)])
        before, kinds, slowest = memory(process), Counter[str](), 0.0
        for _ in range(count):
            data = mutated(dice, everything)
            started = time.monotonic()
            status, _, _ = post(port, "/v1/captions?maps=none&strategy=greedy&max_words=3", data)
            slowest = max(slowest, time.monotonic() - started)
            kinds[str(status)] += 1
        after = memory(process)
        whole = post(port, "/v1/captions", sound["JPEG"][0])[0]
    return {
        "answers": dict(kinds),
        "slowest in s": round(slowest, 2),
        "resident MB before and after": [round(before), round(after)],
        "met": not any(kind in kinds for kind in ("0", "500", "502")) and slowest < 2.5 and after - before < 64 and whole == 200,
    }


def mutated(dice: random.Random, sound: list[bytes]) -> bytes:
    """Return a file that somebody may send who means no good."""
    data = bytearray(dice.choice(sound))
    kind = dice.randrange(7)
    if kind == 0:
        return bytes(data[: dice.randrange(len(data))])
    if kind == 1:
        for _ in range(dice.randint(1, 30)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return bytes(data)
    if kind == 2:
        other = dice.choice(sound)
        cut = dice.randrange(len(data))
        return bytes(data[:cut]) + other[dice.randrange(len(other)) :]
    if kind == 3:  # the header lies
        for at in range(dice.randint(1, 60)):
            data[at] = dice.randrange(256) if dice.random() < 0.3 else data[at]
        return bytes(data)
    if kind == 4:
        return _png_bomb(dice.randint(1_000, 6_000), dice.randint(1_000, 4_000))
    if kind == 5:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = dice.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
        Image.open(io.BytesIO(sound[0])).save(file, "JPEG", exif=exif)
        return file.getvalue()
    junk = dice.randbytes(dice.randint(0, 3_000))
    return _png(8, 8, bytes(8 * 25), extra=[(dice.choice([b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf"]), junk)])


def _png_bomb(width: int, height: int) -> bytes:
    return _png(width, height, bytes(height * (3 * width + 1)))


def _png(width: int, height: int, rows: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(kind, data) for kind, data in extra or [])
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


PROOFS: dict[str, Callable[[float], dict[str, object]]] = {
    "64 clients, mixed options, float32": equal_answers,
    "batching": batching,
    "overload, half of the clients hang up": overload,
    "hostile pictures": lambda seconds: hostile(round(50 * seconds)),
}


def main() -> int:
    """Run the proofs; returns 0 where all of them are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load; hostile pictures are 50 times as many")
    parser.add_argument("--only", help="a part of a proof's name")
    parser.add_argument("--write", action="store_true", help="put the table into docs/service.md")
    options = parser.parse_args()
    rows = []
    for name, proof in PROOFS.items():
        if options.only and options.only not in name:
            continue
        figures = proof(options.seconds)
        met = figures.pop("met")
        told = "; ".join(f"{key}: {value}" for key, value in figures.items())
        rows.append(f"| {name} | {told} | {'met' if met else 'NOT met'} |")
        print(rows[-1], flush=True)
    if options.write:
        path = ROOT / "docs/service.md"
        table = "<!-- proofs -->\n| proof | figures | |\n|---|---|---|\n" + "\n".join(rows) + "\n<!-- end -->"
        path.write_text(re.sub(r"<!-- proofs -->.*<!-- end -->", lambda _: table, path.read_text(), flags=re.DOTALL))
    return 0 if all(row.endswith("| met |") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
