"""The real server with the embedded checkpoint, for client libraries. They are imported by the tests, not at collection."""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from model import Captioner
from service import Settings, create_app
from service.server import DrainingServer
from tests.connections import SECONDS, port_of
from tests.helpers import wait_until
from tests.test_architecture import ROOT

# Without the client libraries there is no test here.
collect_ignore_glob = [] if find_spec("openai") and find_spec("tritonclient") else ["test_*.py"]

KEY = "a-key"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The libraries' own warnings are not this project's."""
    for item in items:
        if "tests/clients/" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@dataclass(frozen=True)
class Service:
    """A running server and the scene that clients send to it."""

    server: DrainingServer
    scene: bytes

    @property
    def address(self) -> str:
        return f"127.0.0.1:{port_of(self.server)}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def data_url(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.scene).decode()}"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Take all of the queue while the block runs: every request is answered as overloaded."""
        admission = self.server._engine.admission
        with admission.open() as ticket:
            ticket.take("images", self.server._engine.settings.max_queue_images)
            yield

    def post(self, path: str, body: bytes, **headers: str) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read()


@contextlib.contextmanager
def serving(captioner: Captioner, **settings: object) -> Iterator[Service]:
    """Serve the embedded checkpoint under its usual name."""
    values = Settings(port=0, **settings)
    server = DrainingServer(create_app({"default": captioner}, values), values)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, SECONDS)
        yield Service(server, (ROOT / "docs/images/scene.png").read_bytes())
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def embedded() -> Captioner:
    return Captioner.load()


@pytest.fixture(scope="session")
def service(embedded: Captioner) -> Iterator[Service]:
    with serving(embedded) as running:
        yield running


@pytest.fixture(scope="session")
def secured(embedded: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that needs the key KEY."""
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"{KEY}\n", encoding="utf-8")
    with serving(embedded, keys_file=str(path)) as running:
        yield running


@pytest.fixture(scope="session")
def text(service: Service) -> str:
    """The caption of the scene, as the native API returns it."""
    text = service.post("/v1/captions", service.scene, Accept="text/plain").decode().strip()
    assert "blue star" in text
    assert "orange triangle" in text
    return text
