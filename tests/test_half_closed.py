"""Clients that end their side of a connection are answered; those that close it are forgotten, at no cost to others."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.connections import EMPTY, SECONDS, connect, head, listening, port_of, response_on, status
from tests.helpers import paused, wait_until


def received_until_closed(connection: socket.socket) -> bytes:
    """Return all that arrives on a connection until the server closes it."""
    blocks = []
    while block := connection.recv(65536):
        blocks.append(block)
    return b"".join(blocks)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_that_ends_its_side_after_the_request_gets_the_response(port, photo, accept, version):
    data = photo()
    request = head(content_length=str(len(data)), accept=accept).replace(b"HTTP/1.1", f"HTTP/{version}".encode()) + data
    with connect(port) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = received_until_closed(connection)
    final = answer[answer.rindex(b"HTTP/1.1 ") :]  # a slow machine may have sent interim responses first
    assert final.startswith(b"HTTP/1.1 200")
    assert (b"event: caption" if "event" in accept else b'"captions"') in final


def test_all_pipelined_requests_of_a_client_that_ends_its_side_are_answered(port):
    with connect(port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        connection.shutdown(socket.SHUT_WR)
        assert received_until_closed(connection).count(b'"alive"') == 3


@pytest.mark.parametrize("request_start", [b"", b"POST /v1/captions HTTP/1.1\r\n", head(content_length="10") + b"12345"])
def test_a_connection_that_ends_inside_a_request_is_closed(server, port, request_start):
    with connect(port) as connection:
        connection.sendall(request_start)
        connection.shutdown(socket.SHUT_WR)
        assert not received_until_closed(connection)
    wait_until(lambda: server.config.app.state.engine.admission.used == EMPTY)


def test_a_client_that_has_ended_its_side_is_answered_by_the_deadline(tiny_captioner, photo):
    captioner, hook = paused(tiny_captioner)
    data = photo()
    with listening(captioner, deadline_seconds=1.0) as server:
        try:
            with connect(port_of(server)) as connection:
                connection.sendall(head(content_length=str(len(data))) + data)
                connection.shutdown(socket.SHUT_WR)
                assert b"HTTP/1.1 504" in received_until_closed(connection)
            wait_until(lambda: not server.server_state.connections)
        finally:
            hook.go_on.set()


def test_a_client_that_closes_its_connection_is_distinguished_from_one_that_ends_its_side(tiny_captioner, photo):
    captioner, hook = paused(tiny_captioner)
    data = photo()
    with listening(captioner, deadline_seconds=SECONDS) as server:
        admission = server.config.app.state.engine.admission
        try:
            with connect(port_of(server)) as patient:
                patient.sendall(head(content_length=str(len(data))) + data)
                patient.shutdown(socket.SHUT_WR)
                with connect(port_of(server)) as leaving:
                    leaving.sendall(head(content_length=str(len(data))) + data)
                    wait_until(lambda: admission.used["images"] == 2)
                wait_until(lambda: admission.used["images"] == 1)  # cancelled while the other waits
                hook.go_on.set()
                response = response_on(patient)  # the interim responses are skipped, as every client does
                assert response.status == 200
        finally:
            hook.go_on.set()


def test_clients_that_hang_up_cost_no_encoder_call_and_disturb_no_other_client(tiny_captioner, photo):
    captioner, hook = paused(tiny_captioner)
    data = photo()
    with listening(captioner, deadline_seconds=SECONDS, watchdog_seconds=SECONDS) as server:
        value = server.config.app.state.engine.metrics.registry.get_sample_value
        try:
            with contextlib.ExitStack() as connections:
                for number in range(12):
                    connection = connections.enter_context(connect(port_of(server)))
                    connection.sendall(head("/v1/captions?num_beams=8", content_length=str(len(data))) + data)
                    assert number or hook.entered.wait(SECONDS), "the first is being encoded; the others have to wait"
                wait_until(lambda: value("sightline_queue_images") == 11, SECONDS)
            left = {"endpoint": "/v1/captions", "status": "499"}
            wait_until(lambda: value("sightline_requests_total", left) == 12, SECONDS)
            hook.go_on.set()
            assert status(port_of(server), data) == 200
            assert value("sightline_encode_seconds_count") == 2, "of the 12 images only the first had been encoded"
        finally:
            hook.go_on.set()
