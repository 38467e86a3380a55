"""The real server on a free port, and clients of it that send exactly these bytes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from model import Captioner
from service import Settings, create_app
from service.server import DrainingServer
from tests.helpers import wait_until

SECONDS = 60.0  # after which a test has failed
EMPTY = {"images": 0, "body_bytes": 0, "pixels": 0}
MEGABYTE = 1_000_000


@contextlib.contextmanager
def listening(captioner: Captioner, **settings) -> Iterator[DrainingServer]:
    """Serve a captioner by the real server, on a free port of 127.0.0.1."""
    values = Settings(port=0, **settings)
    server = DrainingServer(create_app({"tiny": captioner}, values), values)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, SECONDS)
        yield server
    finally:
        server.should_exit = True
        thread.join()


def port_of(server: DrainingServer) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def server(tiny_captioner: Captioner) -> Iterator[DrainingServer]:
    """The real server with short limits."""
    with listening(tiny_captioner, header_seconds=1.0, body_seconds=1.0, max_header_bytes=8192, max_headers=50) as running:
        yield running


@pytest.fixture(scope="module")
def port(server: DrainingServer) -> int:
    """The port of the server with short limits."""
    return port_of(server)


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    """Return a connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS, source_address=(address, 0))


def talk(port: int, *parts: bytes, drip: bytes = b"") -> bytes:
    """Send parts, then `drip` again and again; stop at the first response. Returns all that arrives until the server closes."""
    received, closed = bytearray(), threading.Event()

    def receive(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            while block := connection.recv(65536):
                received.extend(block)
        closed.set()

    with connect(port) as connection:
        reader = threading.Thread(target=receive, args=(connection,))
        reader.start()

        def is_answered_after(data: bytes) -> bool:
            try:
                connection.sendall(data)
            except ConnectionError:
                return True
            return bool(received) or closed.is_set()

        if not any(is_answered_after(part) for part in parts) and drip:
            wait_until(lambda: is_answered_after(drip), SECONDS)
        assert closed.wait(SECONDS), "the server did not close the connection"
        reader.join()
    return bytes(received)


def head(path: str = "/v1/captions", **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def status(port: int, body: bytes | None = None, address: str = "127.0.0.1") -> int:
    """Return the status of a new connection's request, of a probe or with a body for captions; 0 if it is cut off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS, source_address=(address, 0))
    try:
        connection.request("GET" if body is None else "POST", "/livez" if body is None else "/v1/captions", body)
        response = connection.getresponse()
        response.read()
        return response.status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def response_on(connection: socket.socket) -> http.client.HTTPResponse:
    """Return the next response on a connection, of which the headers have been read."""
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return response
