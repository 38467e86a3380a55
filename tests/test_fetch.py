"""Pictures by URL: only from hosts that are allowed, only at addresses that were judged, bounded in time and size."""

from __future__ import annotations

import http.server
import ipaddress
import json
import ssl
import threading

import pytest
import trustme
from fastapi.testclient import TestClient

from model import ConfigError
from service import Settings, create_app
from service.runtime.fetch import Fetcher
from tests.conftest import problem

ASKED: list[tuple[str, dict[str, str]]] = []


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Serve files by https on loopback, under a certificate for `localhost` that this process trusts."""
    folder = tmp_path_factory.mktemp("store")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ASKED.append((self.path, dict(self.headers)))
            if self.path.startswith("/slow"):
                threading.Event().wait(7)
            found = server.files.get(self.path)
            self.send_response(302 if self.path == "/moved" else 404 if found is None else 200)
            self.send_header("Location", "https://localhost/elsewhere")
            self.end_headers()
            try:
                self.wfile.write(found or b"")
            except OSError:  # the client did not want all of it
                return

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.files = {}
    server.authority = str(folder / "authority.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(store, tiny_captioner, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", store.authority)
    host = f"localhost:{store.server_address[1]}"
    settings = Settings(url_hosts=f"{host}, pictures.example", url_networks="127.0.0.0/8, ::1/128", max_body_bytes=100_000)
    with TestClient(create_app({"tiny": tiny_captioner}, settings), raise_server_exceptions=False) as found:
        found.store = f"https://{host}"
        yield found


def test_a_picture_by_url_gets_the_caption_of_its_bytes(client, store, picture):
    store.files["/a/b.jpg?size=1"] = picture
    answer = client.post("/v1/captions", json={"url": f"{client.store}/a/b.jpg?size=1", "strategy": "greedy"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["captions"] == client.post("/v1/captions?strategy=greedy", content=picture).json()["captions"]
    path, headers = ASKED[-1]
    assert path == "/a/b.jpg?size=1"
    assert headers["Host"] == client.store.removeprefix("https://")
    assert headers["Accept-Encoding"] == "identity"
    assert client.post("/v1/explanations", json={"url": f"{client.store}/a/b.jpg?size=1", "caption": "a dog"}).status_code == 200
    assert client.app.state.engine.admission.used == {"pictures": 0, "body_bytes": 0, "pixels": 0}


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.jpg",
        "http://localhost/a.jpg",
        "https://localhost/a.jpg",  # another port than the one allowed
        "https://user@pictures.example/a.jpg",
        "file:///etc/passwd",
        "https://pictures.example.evil.org/a.jpg",
        "https:///a.jpg",
    ],
)
def test_other_hosts_are_refused_and_never_asked(client, url):
    asked = len(ASKED)
    problem(client.post("/v1/captions", json={"url": url}), "host_not_allowed")
    assert len(ASKED) == asked


def test_a_host_in_a_private_network_is_refused_whatever_its_name(store, tiny_captioner, picture, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", store.authority)
    store.files["/a.jpg"] = picture
    host = f"localhost:{store.server_address[1]}"
    asked = len(ASKED)
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(url_hosts=host)), raise_server_exceptions=False) as client:
        problem(client.post("/v1/captions", json={"url": f"https://{host}/a.jpg"}), "host_not_allowed")
    assert len(ASKED) == asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1", "::1", "fe80::1",
        "fc00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:0a00:0001::1",
        "64:ff9b::7f00:1", "2001:0:7f00:1::1", "fec0::1", "::7f00:1", "::a9fe:a9fe",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside_are_not_public(address):
    assert not Fetcher(Settings())._allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_public_addresses_are(address):
    assert Fetcher(Settings())._allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("path", ["/nothing.jpg", "/moved", "/slow.jpg", "/empty"])
def test_what_cannot_be_had_is_told(client, store, path):
    store.files["/empty"] = b""
    answer = client.post("/v1/captions", json={"url": client.store + path})
    problem(answer, "invalid_option")
    assert answer.json()["errors"][0]["pointer"] == "/url"


def test_what_is_too_large_is_not_read_to_its_end(client, store):
    store.files["/large"] = bytes(1_000_000)
    problem(client.post("/v1/captions", json={"url": f"{client.store}/large"}), "body_too_large")


def test_a_certificate_of_another_name_is_refused(client, store, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    problem(client.post("/v1/captions", json={"url": f"{client.store}/a.jpg"}), "invalid_option")


def test_a_url_comes_alone(client):
    problem(client.post("/v1/captions", json={"url": "https://pictures.example/a", "image": "QUJD"}), "invalid_option")
    for odd in (
        3,
        "https://\ud800\u2100/",
        "https://pictures.example/\u212a",
        "https://pictures.example/" + "a" * 3000,
        "https://[/",
    ):
        body = json.dumps({"url": odd})
        problem(client.post("/v1/captions", content=body, headers={"content-type": "application/json"}), "invalid_option")


def test_networks_that_cannot_be_read_end_the_start():
    with pytest.raises(ConfigError, match="url_networks"):
        Fetcher(Settings(url_networks="ten"))
