"""Connections that send slowly, nothing, or without end: cut off as told, and nobody else waits for them."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from service import Settings, create_app
from service.server import DrainingServer


@pytest.fixture(scope="module")
def settings():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    return Settings(port=number, header_seconds=1.0, body_seconds=1.0, max_header_bytes=8192, max_headers=50)


@pytest.fixture(scope="module")
def served_app(tiny_captioner, settings):
    return create_app({"tiny": tiny_captioner}, settings)


@pytest.fixture(scope="module")
def port(served_app, settings):
    """Serve the tiny captioner by the real server, with short limits."""
    server = DrainingServer(served_app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    for _ in range(200):
        if server.started:
            break
        time.sleep(0.05)
    yield settings.port
    server.should_exit = True
    thread.join()


def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts with pauses, as long as nothing comes back; returns all that comes until the other end closes."""
    answer = bytearray()

    def listen(line: socket.socket) -> None:
        try:
            while block := line.recv(65536):
                answer.extend(block)
        except (ConnectionError, TimeoutError):
            return

    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        listener = threading.Thread(target=listen, args=(line,))
        listener.start()
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
                if answer:
                    break
        except (ConnectionError, TimeoutError):
            pass
        listener.join(timeout=6)
    return bytes(answer)


def head(path: str = "/v1/captions", **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def alive(port: int) -> float:
    """Return the seconds that another client's probe takes."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - started


def test_a_connection_that_says_nothing_is_closed(port):
    started = time.monotonic()
    assert talk(port).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 4


def test_headers_that_drip_are_cut_off(port):
    dripping = [b"GET /livez HTTP/1.1\r\nHost: x\r\n", *[b"a", b"b", b"c", b"d"] * 3]
    assert b"408 Request Timeout" in talk(port, *dripping, pause=0.3)


@pytest.mark.parametrize("size", [9_000, 200_000, 8_000_000])
def test_headers_that_are_too_large_are_refused(port, size):
    long = b"GET /livez HTTP/1.1\r\nHost: x\r\nx-long: " + b"a" * size + b"\r\n\r\n"
    answer = talk(port, *(long[at : at + 4096] for at in range(0, len(long), 4096)))
    assert not answer or answer.startswith(b"HTTP/1.1 431"), "refused, or cut off while it still sends"
    assert alive(port) < 2


def test_too_many_headers_are_refused(port):
    many = "".join(f"x-{number}: 1\r\n" for number in range(51))
    assert talk(port, f"GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n".encode()).startswith(b"HTTP/1.1 431")
    endless = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: 1\r\n" * 20_000
    answer = talk(port, *(endless[at : at + 1024] for at in range(0, len(endless), 1024)))
    assert not answer or answer.startswith(b"HTTP/1.1 431")


def test_a_body_that_drips_is_a_408(port):
    answer = talk(port, head(content_length="1000"), *[b"x"] * 6, pause=0.3)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"slow_body" in answer
    assert b"bytes came within 1 s" in answer


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(port):
    answer = talk(port, head(content_length="200000000"), b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_large_body_behind_short_headers_is_taken(port, photo):
    data = photo(300, 200)
    assert len(data) > 100_000
    answer = talk(port, head(content_length=str(len(data)), connection="close") + data)
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_connection_serves_many_requests_each_with_its_own_limits(port, photo):
    data = photo()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):
        connection.request("POST", "/v1/captions?maps=none", data, {"x-padding": "a" * 6_000})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()


def test_the_end_of_the_headers_may_be_split_between_packets(port, photo):
    data = photo(300, 200)
    whole = head(content_length=str(len(data)), connection="close")
    assert talk(port, whole[:-1], whole[-1:] + data, pause=0.2).startswith(b"HTTP/1.1 200")


def test_trailers_without_end_are_cut_off(port):
    endless = [b"a" * 4096] * 200
    started = time.monotonic()
    talk(port, head(transfer_encoding="chunked") + b"0\r\nX: ", *endless, pause=0.002)
    assert time.monotonic() - started < 6
    assert alive(port) < 2


def test_small_chunks_are_a_body_like_any_other(port, photo):
    data = photo(64, 48)
    chunks = b"".join(b"1\r\n" + data[at : at + 1] + b"\r\n" for at in range(len(data))) + b"0\r\n\r\n"
    answer = talk(port, head(transfer_encoding="chunked", connection="close") + chunks)
    assert answer.startswith(b"HTTP/1.1 200")


def test_what_comes_behind_an_answer_does_not_keep_a_connection_open(port):
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    for parts in ((get + b"\r\n", b"\r\n"), (get + b"Content-Length: 10\r\n\r\n", b"x")):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(parts[0])
            assert line.recv(4096).startswith(b"HTTP/1.1 200")
            line.sendall(parts[1])
            while line.recv(4096):
                pass  # it is closed within the limits, not after 10 s


def test_many_that_say_nothing_keep_nobody_waiting(port):
    lines = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(200)]
    try:
        assert max(alive(port) for _ in range(5)) < 2
    finally:
        for line in lines:
            line.close()


def test_an_offer_of_another_protocol_is_ignored_and_the_body_read(port, photo):
    """What `curl --http2 --data-binary` sends (RFC 9110, section 7.8)."""
    data = photo()
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    for whole in (head(content_length=str(len(data)), **upgrade), head(content_length=str(len(data)), **upgrade).lower()):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(whole.replace(b"post /v1", b"POST /v1").replace(b"http/1.1", b"HTTP/1.1") + data)
            assert line.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_offer_is_ignored_in_later_requests_of_a_connection_too(port, photo):
    data = photo()
    whole = head(content_length=str(len(data)), connection="Upgrade", upgrade="h2c") + data
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for _ in range(3):
            line.sendall(whole)
            answer = http.client.HTTPResponse(line, method="POST")
            answer.begin()
            answer.read()
            assert answer.status == 200


def test_another_protocol_is_refused_where_it_cannot_be_ignored(port):
    assert talk(port, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n").startswith(b"HTTP/1.1 501")
    assert alive(port) < 2


def test_a_large_answer_holds_its_place_until_it_is_read(port, served_app, photo):
    data = photo()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        line.sendall(head("/v1/captions?map_size=512x512&min_words=8&max_words=8", content_length=str(len(data))) + data)
        line.recv(100)  # the answer has begun
        time.sleep(0.5)
        assert served_app.state.engine.admission.used["pictures"] == 1
        while served_app.state.engine.admission.used["pictures"]:
            assert line.recv(65536)
