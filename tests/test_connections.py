"""Connections that send slowly, nothing, without end, or are too many: they are cut off, and other clients are served."""

from __future__ import annotations

import contextlib
import http.client
import socket

import pytest

from tests.connections import EMPTY, MEGABYTE, SECONDS, connect, head, listening, port_of, response_on, status, talk
from tests.helpers import wait_until


def test_a_silent_connection_is_closed_with_408(port):
    assert talk(port).startswith(b"HTTP/1.1 408")


def test_headers_that_drip_are_cut_off(port):
    assert b"408 Request Timeout" in talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n", drip=b"a")


@pytest.mark.parametrize("size", [9_000, 200_000, 8_000_000])
def test_headers_that_are_too_large_are_refused(port, size):
    long = b"GET /livez HTTP/1.1\r\nHost: x\r\nx-long: " + b"a" * size + b"\r\n\r\n"
    answer = talk(port, *(long[start : start + 4096] for start in range(0, len(long), 4096)))
    assert not answer or answer.startswith(b"HTTP/1.1 431"), "refused, or cut off while it still sends"
    assert status(port) == 200


def test_too_many_headers_are_refused(port):
    many = "".join(f"x-{number}: 1\r\n" for number in range(51))
    assert talk(port, f"GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n".encode()).startswith(b"HTTP/1.1 431")
    answer = talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n", drip=b"a: 1\r\n" * 170)
    assert not answer or answer.startswith(b"HTTP/1.1 431")


def test_a_body_that_drips_is_a_408(port):
    answer = talk(port, head(content_length="1000000"), drip=b"x")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"slow_body" in answer
    assert b"bytes arrived within 1 s" in answer


def test_a_body_that_is_announced_too_large_is_refused_before_it_arrives(port):
    answer = talk(port, head(content_length="200000000"), b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_large_body_after_short_headers_is_accepted(port, photo):
    data = photo(300, 200)
    assert len(data) > 100_000
    answer = talk(port, head(content_length=str(len(data)), connection="close") + data)
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_connection_serves_many_requests_each_with_its_own_limits(port, photo):
    data = photo()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    for _ in range(3):
        connection.request("POST", "/v1/captions?maps=none", data, {"x-padding": "a" * 6_000})
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def test_the_end_of_the_headers_may_be_split_between_packets(port, photo):
    data = photo(300, 200)
    request = head(content_length=str(len(data)), connection="close") + data
    end = len(request) - len(data)
    for first in (end - 3, end - 1, end + 1):
        with connect(port) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request[:first])
            assert status(port) == 200  # the first packet has arrived meanwhile
            connection.sendall(request[first:])
            assert response_on(connection).status == 200


def test_trailers_without_end_are_cut_off(port):
    talk(port, head(transfer_encoding="chunked") + b"0\r\nX: ", drip=b"a" * 4096)
    assert status(port) == 200


def test_small_chunks_are_a_body_like_any_other(port, photo):
    data = photo(64, 48)
    chunks = b"".join(b"1\r\n" + data[index : index + 1] + b"\r\n" for index in range(len(data))) + b"0\r\n\r\n"
    answer = talk(port, head(transfer_encoding="chunked", connection="close") + chunks)
    assert answer.startswith(b"HTTP/1.1 200")


def test_bytes_after_a_response_do_not_keep_a_connection_open(port):
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    for first, rest in ((get + b"\r\n", b"\r\n"), (get + b"Content-Length: 10\r\n\r\n", b"x")):
        with connect(port) as connection:
            connection.sendall(first)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            connection.sendall(rest)
            while connection.recv(4096):
                pass  # until the server closes it


def test_many_silent_connections_delay_no_other_client(port):
    with contextlib.ExitStack() as connections:
        for _ in range(200):
            connections.enter_context(connect(port))
        assert [status(port) for _ in range(5)] == [200] * 5


def test_clients_that_announce_20_megabytes_and_send_nothing_keep_no_other_client_out(tiny_captioner, photo):
    with listening(tiny_captioner, body_seconds=SECONDS) as server, contextlib.ExitStack() as connections:
        port, admission = port_of(server), server.config.app.state.engine.admission
        for _ in range(20):  # together as much as the default limit of all bodies
            connection = connections.enter_context(connect(port))
            connection.sendall(head(content_length=str(20 * MEGABYTE), expect="100-continue"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 100"), "the body is being waited for"
        assert admission.used == EMPTY
        for address in ("127.0.0.1", "127.0.0.2"):
            assert status(port, photo(), address) == 200
        wait_until(lambda: admission.used == EMPTY)


def test_a_connection_above_the_limit_of_its_client_is_answered_429_until_another_closes(tiny_captioner):
    with listening(tiny_captioner, max_connections_per_client=3, header_seconds=SECONDS) as server:
        port = port_of(server)
        with connect(port) as first, connect(port), connect(port):
            assert talk(port).startswith(b"HTTP/1.1 429"), "and then it is closed"
            assert status(port, address="127.0.0.2") == 200, "another client is not affected"
            first.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert response_on(first).status == 200, "an accepted connection is served"
            first.close()
            wait_until(lambda: status(port) == 200)


def test_an_offer_of_another_protocol_is_ignored_and_the_body_is_read(port, photo):
    """What `curl --http2 --data-binary` sends (RFC 9110, section 7.8)."""
    data = photo()
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    request = head(content_length=str(len(data)), **upgrade)
    lower = request.lower().replace(b"post /v1", b"POST /v1").replace(b"http/1.1", b"HTTP/1.1")
    for headers in (request, lower):
        with connect(port) as connection:
            connection.sendall(headers + data)
            assert response_on(connection).status == 200


def test_an_offer_is_ignored_in_later_requests_of_a_connection_too(port, photo):
    data = photo()
    request = head(content_length=str(len(data)), connection="Upgrade", upgrade="h2c") + data
    with connect(port) as connection:
        for _ in range(3):
            connection.sendall(request)
            response = response_on(connection)
            response.read()
            assert response.status == 200


def test_a_protocol_that_cannot_be_ignored_is_refused(port):
    assert talk(port, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n").startswith(b"HTTP/1.1 501")
    assert status(port) == 200


def test_an_image_counts_until_its_large_response_has_been_read(server, port, photo):
    admission, data = server.config.app.state.engine.admission, photo()
    with socket.socket() as connection:
        connection.settimeout(SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        path = "/v1/captions?map_size=512x512&min_words=8&max_words=8"
        connection.sendall(head(path, content_length=str(len(data))) + data)
        response = response_on(connection)  # its body has not been read
        assert [status(port, data) for _ in range(3)] == [200] * 3
        assert admission.used["images"] == 1
        response.read()
        wait_until(lambda: admission.used == EMPTY)


def test_connections_of_a_trusted_proxy_are_not_limited(tiny_captioner):
    settings = {"max_connections_per_client": 1, "trusted_proxies": "127.0.0.2/32", "header_seconds": SECONDS}
    with listening(tiny_captioner, **settings) as server, connect(port_of(server), "127.0.0.2"), connect(port_of(server)):
        assert status(port_of(server), address="127.0.0.2") == 200
        assert talk(port_of(server)).startswith(b"HTTP/1.1 429")


def test_what_is_not_http_is_refused_without_words(port):
    assert talk(port, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n") == (
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
