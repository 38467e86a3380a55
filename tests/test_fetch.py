"""Images by URL: only from allowed hosts, only at addresses that were checked, bounded in time and size."""

from __future__ import annotations

import asyncio
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
from service.errors import ServiceError
from service.runtime import Admission, AdmissionLimits
from service.runtime.fetch import Fetcher
from tests.conftest import problem

REQUESTS: list[tuple[str, dict[str, str]]] = []  # path and headers of what the file server received


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Serve files by https on loopback, with a certificate for `localhost` that `client` trusts."""
    folder = tmp_path_factory.mktemp("store")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            REQUESTS.append((self.path, dict(self.headers)))
            if self.path.startswith("/slow"):
                server.stopped.wait(30)
            content = server.files.get(self.path)
            self.send_response(302 if self.path == "/moved" else 404 if content is None else 200)
            self.send_header("Location", "https://localhost/elsewhere")
            self.end_headers()
            try:
                self.wfile.write(content or b"")
            except OSError:  # the client has closed the connection
                return

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.files = {}
    server.stopped = threading.Event()
    server.authority = str(folder / "authority.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(store, tiny_captioner, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", store.authority)
    host = f"localhost:{store.server_address[1]}"
    settings = Settings(url_hosts=f"{host}, images.example", url_networks="127.0.0.0/8, ::1/128", max_body_bytes=100_000)
    with TestClient(create_app({"tiny": tiny_captioner}, settings), raise_server_exceptions=False) as test_client:
        test_client.store = f"https://{host}"
        yield test_client


def test_an_image_by_url_gets_the_captions_of_its_bytes(client, store, image_bytes):
    store.files["/a/b.jpg?size=1"] = image_bytes
    url = f"{client.store}/a/b.jpg?size=1"
    response = client.post("/v1/captions", json={"url": url, "strategy": "greedy"})
    assert response.status_code == 200, response.text
    assert response.json()["captions"] == client.post("/v1/captions?strategy=greedy", content=image_bytes).json()["captions"]
    path, headers = REQUESTS[-1]
    assert path == "/a/b.jpg?size=1"
    assert headers["Host"] == client.store.removeprefix("https://")
    assert headers["Accept-Encoding"] == "identity"
    assert client.post("/v1/explanations", json={"url": url, "caption": "a dog"}).status_code == 200
    assert client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.jpg",
        "http://localhost/a.jpg",
        "https://localhost/a.jpg",  # another port than the allowed one
        "https://user@images.example/a.jpg",
        "file:///etc/passwd",
        "https://images.example.evil.org/a.jpg",
        "https:///a.jpg",
    ],
)
def test_hosts_that_are_not_allowed_are_refused_without_a_request(client, url):
    num_requests = len(REQUESTS)
    problem(client.post("/v1/captions", json={"url": url}), "host_not_allowed")
    assert len(REQUESTS) == num_requests


def test_an_allowed_host_with_a_private_address_is_refused(store, tiny_captioner, image_bytes, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", store.authority)
    store.files["/a.jpg"] = image_bytes
    host = f"localhost:{store.server_address[1]}"
    num_requests = len(REQUESTS)
    app = create_app({"tiny": tiny_captioner}, Settings(url_hosts=host))
    with TestClient(app, raise_server_exceptions=False) as client:
        problem(client.post("/v1/captions", json={"url": f"https://{host}/a.jpg"}), "host_not_allowed")
    assert len(REQUESTS) == num_requests


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1", "::1", "fe80::1",
        "fc00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:0a00:0001::1",
        "64:ff9b::7f00:1", "2001:0:7f00:1::1", "fec0::1", "::7f00:1", "::a9fe:a9fe",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address):
    fetcher = Fetcher(Settings(url_hosts=address))
    url = f"https://[{address}]/a.jpg" if ":" in address else f"https://{address}/a.jpg"
    admission = Admission(AdmissionLimits(1, 1, 1), lambda _: 1)
    with admission.open() as ticket, pytest.raises(ServiceError, match="not public") as refused:
        asyncio.run(fetcher.fetch(url, ticket))
    assert refused.value.code == "host_not_allowed"
    assert not fetcher._allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_a_public_address_is_allowed(address):
    assert Fetcher(Settings())._allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("path", ["/nothing.jpg", "/moved", "/slow.jpg", "/empty"])
def test_an_image_that_cannot_be_fetched_is_an_invalid_url(client, store, path):
    store.files["/empty"] = b""
    body = problem(client.post("/v1/captions", json={"url": client.store + path}), "invalid_option")
    assert body["errors"][0]["pointer"] == "/url"


def test_an_image_by_url_that_is_too_large_is_refused(client, store):
    store.files["/large"] = bytes(1_000_000)
    problem(client.post("/v1/captions", json={"url": f"{client.store}/large"}), "body_too_large")


def test_a_certificate_that_is_not_trusted_is_refused(client, store, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    problem(client.post("/v1/captions", json={"url": f"{client.store}/a.jpg"}), "invalid_option")


def test_a_url_is_refused_with_an_image_or_if_it_is_not_one(client):
    problem(client.post("/v1/captions", json={"url": "https://images.example/a", "image": "QUJD"}), "invalid_option")
    for url in (
        3,
        "https://\ud800\u2100/",
        "https://images.example/\u212a",
        "https://images.example/" + "a" * 3000,
        "https://[/",
    ):
        body = json.dumps({"url": url})
        problem(client.post("/v1/captions", content=body, headers={"content-type": "application/json"}), "invalid_option")


def test_networks_that_cannot_be_read_are_a_config_error():
    with pytest.raises(ConfigError, match="url_networks"):
        Fetcher(Settings(url_networks="ten"))
