"""Rows of the report about HTTP, tried on `python -m service` with the embedded checkpoint."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import gzip
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from tests.proofs.field.row import Row

ROOT = Path(__file__).parents[3]
SECONDS = 120.0
FOREIGN = re.compile(r"0x[0-9a-f]{6}|int_max_str|Expecting|codec|Input should|Errno|Did not|recursion|Traceback|\.py\b")


Response = tuple[int, str, dict[str, str]]  # status, text, headers


class Service:
    """A service process, its address and the seconds until its first and its last line before it is ready."""

    def __init__(self, *flags: str) -> None:
        started = time.monotonic()
        command = [sys.executable, "-m", "service", "--port", "0", *flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        assert self.process.stderr is not None
        self.first_line = self.process.stderr.readline()
        self.first_seconds = time.monotonic() - started
        self.ready_line = next(line for line in self.process.stderr if "ready url=" in line)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()  # a full pipe would block the service
        self.ready_seconds = time.monotonic() - started
        self.port = int(re.findall(r"127\.0\.0\.1:(\d+)", self.ready_line)[0])

    def send(
        self, path: str, body: bytes = b"", kind: str = "", method: str = "POST", **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers of a response."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | ({"content-type": kind} if kind else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace"), dict(response.getheaders())


@functools.cache
def service(*flags: str) -> Service:
    return Service(*flags)


@functools.cache
def image() -> bytes:
    """Return a JPEG: a red circle on green."""
    encoded, drawing = io.BytesIO(), Image.new("RGB", (160, 120), (40, 120, 60))
    ImageDraw.Draw(drawing).ellipse((40, 20, 120, 100), fill=(200, 30, 30))
    drawing.save(encoded, "JPEG")
    return encoded.getvalue()


def statuses(*responses: Response) -> list[int]:
    return [status for status, _, _ in responses]


def as_json(text: str) -> bytes:
    return json.dumps({"image": text}).encode()


def image_texts() -> tuple[bool, str]:
    """Base64 and data: URLs in six variants."""
    plain = base64.b64encode(image()).decode()
    texts = [
        f" data:image/jpeg;base64,{plain}\n",
        f"data:image/jpeg; base64,{plain}",
        f"DATA:IMAGE/JPEG;NAME=A.JPG;BASE64,{plain}",
        plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/jpeg," + "".join(f"%{byte:02x}" for byte in image()),
        plain.rstrip("="),
    ]
    got = statuses(*(service().send("/v1/captions", as_json(text), "application/json") for text in texts))
    return got == [200] * 6, f"{got}"


def trailing_slash() -> tuple[bool, str]:
    status, _, headers = service().send("/v1/captions/", image(), x_forwarded_proto="https", host="evil.example")
    return status == 200 and "location" not in headers, f"{status}, Location {headers.get('location')}"


def own_words() -> tuple[bool, str]:
    bodies = [
        ("", image()[:400] + image()[500:]),
        ("application/json", b'{"num_beams": ' + b"9" * 5000 + b"}"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"image": "*", "prompt": "\\ud800"}'),
        ("application/json", b'{"image": "/9j/", "temperature": NaN}'),
        ("multipart/form-data; boundary=X", b"--X\r\nbroken"),
    ]
    answers = [service().send("/v1/captions", body, kind) for kind, body in bodies]
    foreign = [text for _, text, _ in answers if FOREIGN.search(text)]
    return not foreign and all(
        400 <= status < 500 for status in statuses(*answers)
    ), f"{statuses(*answers)}, {foreign or 'own words'}"


def form_parts() -> tuple[bool, str]:
    part = b'--X\r\nContent-Disposition: form-data; name="image"%s\r\n\r\n%s\r\n--X--\r\n'
    bodies = [
        part % (b"", image()),
        part % (b"; filename*=UTF-8''a.jpg", image()),
        part % (b"\r\nContent-Type: image/jpeg", image()),
        b"preamble\r\n" + part % (b"", image()) + b"epilogue",
        (part % (b"", image())).replace(b"--X\r\n", b"--X  \r\n", 1),
    ]
    got = statuses(*(service().send("/v1/captions", body, "multipart/form-data; boundary=X") for body in bodies))
    return got == [200] * 5, f"{got}"


def half_close() -> tuple[bool, str]:
    head = f"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image())}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", service().port), timeout=SECONDS) as connection:
        connection.sendall(head + image())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    line = answer.partition(b"\r\n")[0].decode()
    return b"HTTP/1.1 200" in answer and b'"captions"' in answer, line


def proxies() -> tuple[bool, str]:
    plain = service("--requests-per-minute", "2")
    trusted = service("--requests-per-minute", "2", "--trusted-proxies", "127.0.0.1", "--root-path", "/captioner")
    got = [
        statuses(*(one.send("/v1/captions", b"x", x_forwarded_for=f"9.9.9.9, 1.2.3.{number}") for number in range(3)))
        for one in (plain, trusted)
    ]
    page, document = (trusted.send(path, method="GET") for path in ("/docs", "/captioner/openapi.json"))
    works = "/captioner/docs/start.js" in page[1] and json.loads(document[1])["servers"] == [{"url": "/captioner"}]
    return got == [
        [415, 415, 429],
        [415] * 3,
    ] and works, f"untrusted {got[0]}, trusted {got[1]}, page and document under a path: {works}"


def encodings() -> tuple[bool, str]:
    got = statuses(
        service().send("/v1/captions", gzip.compress(image()), content_encoding="gzip"),
        service().send("/v1/captions", gzip.compress(bytes(30_000_000)), content_encoding="gzip"),
        service().send("/v1/captions", image(), content_encoding="br"),
    )
    return got == [200, 413, 415], f"{got}"


def invalid_utf8() -> tuple[bool, str]:
    answer = service().send("/v1/captions?prompt=caf%E9", image())
    return answer[0] == 422, f"{answer[0]}"


def forms_of_responses() -> tuple[bool, str]:
    kinds = ("image/png", "text/html", "text/plain")
    answers = [service().send("/v1/explanations?caption=a+red+circle", image(), accept=kind) for kind in kinds]
    several = service().send("/v1/captions?num_return_sequences=3", image(), accept="text/plain")[1].splitlines()
    body = json.dumps({"images": [base64.b64encode(image()).decode()] * 2}).encode()
    batch = service().send("/v1/captions/batch", body, "application/json", accept="text/plain")[1].splitlines()
    met = statuses(*answers) == [200] * 3 and (len(several), len(batch)) == (3, 2)
    return met, f"{statuses(*answers)}, {len(several)} lines of 3 captions, {len(batch)} of 2 images"


def boxes() -> tuple[bool, str]:
    words = json.loads(service().send("/v1/captions?map_size=none", image())[1])["captions"][0]["words"]
    return all(
        word["box"] and word["map"] is None for word in words
    ), f"{len(words)} words, first box {words[0]['box']}, no values"


def curl_d() -> tuple[bool, str]:
    damaged = re.sub(rb"[\r\n\0]", b"", image())
    status, text, _ = service().send("/v1/captions", damaged, "application/x-www-form-urlencoded")
    return status == 400 and "--data-binary" in text, f"{status}: {json.loads(text)['detail']}"


def language() -> tuple[bool, str]:
    status, text, _ = service().send("/v1/captions?language=en-US", image())
    return status == 200, f"{status}, {json.loads(text)['captions'][0]['language'] if status == 200 else text}"


def page_offline() -> tuple[bool, str]:
    _, text, headers = service().send("/docs", method="GET")
    files = re.findall(r'(?:src|href)="([^"]+)"', text)
    got = statuses(*(service().send(file, method="GET") for file in files))
    met = got == [200] * 4 and not any("//" in file for file in files)
    return met, f"{len(files)} files, all of this service: {got}; {headers['content-security-policy'][:40]}…"


def start() -> tuple[bool, str]:
    one = service()
    met = "starting" in one.first_line and f":{one.port}" in one.ready_line
    return met, f"first line after {one.first_seconds:.1f} s, address after {one.ready_seconds:.1f} s"


def _row(name: str, expected: str, run: Callable[[], tuple[bool, str]]) -> Row:
    return Row(name, expected, lambda folder, scratch: run())


ROWS: list[Row] = [
    _row("white space, parameters and percent-encoding of data: URLs", "read", image_texts),
    _row("POST /v1/captions/ through a TLS proxy", "no redirect", trailing_slash),
    _row("mangled bodies", "our own words", own_words),
    _row("parts without a file name, preamble, padding", "read", form_parts),
    _row("a client that half-closes after its request", "gets its answer", half_close),
    _row("reverse proxy under a path, X-Forwarded-For", "root_path and trusted_proxies, off by default", proxies),
    _row("Content-Encoding: gzip", "read within the limits, or refused by that name", encodings),
    _row("?prompt=caf%E9", "422", invalid_utf8),
    _row("Accept on explanations; text of several captions, of batches", "as on captions; one in each line", forms_of_responses),
    _row("boxes without the maps' values", "on request: map_size=none", boxes),
    _row("curl -d @photo.jpg", "says --data-binary", curl_d),
    _row("language=en-US", "en", language),
    _row("/docs offline", "works", page_offline),
    _row("make serve", "a line at once, and one with the address", start),
]
