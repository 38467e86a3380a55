"""Fixtures: tiny networks with random weights, generated images, and a client of the service. No network access."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import io
from collections.abc import Callable

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from model import (
    Captioner,
    CaptionNetwork,
    CaptionTokenizer,
    Checkpoint,
    prepare,
)
from service import Settings, create_app
from service.errors import ERRORS
from service.http.dialects.native.schemas import ProblemBody
from tests.connections import port, server  # noqa: F401  fixtures
from tests.networks import redraw, tiny_config
from tests.runs import quick_data, quick_run, quick_start  # noqa: F401  fixtures
from tests.scheduling import start_scheduler  # noqa: F401  a fixture

SENTENCES = [
    "a brown dog runs on the grass",
    "two dogs play with a red ball",
    "a girl in a pink dress climbs the stairs",
    "a man rides a bike down the hill",
    "children play football in the park",
    "a woman's well-known hat is on the table",
]


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(SENTENCES * 3, 320)


@pytest.fixture(scope="session")
def tiny_network(tokenizer: CaptionTokenizer) -> CaptionNetwork:
    """Random weights in float64, with an end token that is likely enough for captions to end."""
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size, num_register_tokens=1)).double().eval()
    redraw(network, 1)
    with torch.no_grad():
        network.decoder.token_embedding.weight[network.config.decoder.eos_token_id] *= 2.5
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_captioner(tokenizer: CaptionTokenizer) -> Captioner:
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size))
    redraw(network, 9)
    with torch.no_grad():  # captions of random weights hardly ever end
        network.decoder.token_embedding.weight[network.config.decoder.eos_token_id] *= 2.3
    return Captioner.from_checkpoint(Checkpoint(network, tokenizer, "# A tiny card"))


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    """Return a function that encodes an image of random pixels: photo(width, height, format, mode, seed) -> bytes."""

    def make(
        width: int = 64, height: int = 48, format: str = "PNG", mode: str = "RGB", seed: int = 0, **options: object
    ) -> bytes:
        noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        image = Image.frombytes("RGB", (width, height), noise.numpy().tobytes()).convert(mode)
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def views(tiny_captioner: Captioner, photo: Callable[..., bytes]) -> list:
    return [prepare(photo(seed=seed), tiny_captioner.image_config) for seed in range(3)]


@pytest.fixture(scope="session")
def client(tiny_captioner: Captioner):
    settings = Settings(max_body_bytes=3_000_000)
    with TestClient(
        create_app({"tiny": tiny_captioner, "other": tiny_captioner}, settings), raise_server_exceptions=False
    ) as test_client:
        yield test_client


@pytest.fixture(scope="session")
def image_bytes(photo) -> bytes:
    """Return a JPEG of 120 x 90 pixels."""
    return photo(120, 90, "JPEG")


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """One folder of each family, which tests copy."""
    from tests.test_convert import saved  # transformers is imported only where sources are used

    root = tmp_path_factory.mktemp("sources")
    for family in ("vit_gpt2", "blip", "trocr"):
        saved(family, root / family)
    return root


@pytest.fixture(scope="session")
def florence(tmp_path_factory):
    """A tiny Florence-2: peer, processor, the captioner of its folder in float32, and the folder with both layouts."""
    from model.pretrained import convert_source
    from tests.florence import save_microsofts, save_native, tiny_florence

    folder = tmp_path_factory.mktemp("florence")
    peer, processor = tiny_florence()
    save_native(folder / "native", peer, processor)
    save_microsofts(folder / "microsofts", peer, processor)
    for layout in ("native", "microsofts"):
        convert_source(folder / layout, folder / f"ours {layout}", license="MIT")
    return peer, processor, Captioner.load(folder / "ours native", dtype="float32"), folder


@pytest.fixture
def copy_of(sources, tmp_path):
    """Return a function that copies the source of a family, and returns the copy's folder."""

    def copy(family):
        folder = tmp_path / "source"
        folder.mkdir()
        for path in (sources / family).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy


@pytest.fixture(scope="session")
def native(client, image_bytes) -> Callable[..., list[dict]]:
    """Return a function that returns the captions of /v1/captions for `image_bytes` with options."""

    def captions(**options: object) -> list[dict]:
        return client.post("/v1/captions", content=image_bytes, params=options).json()["captions"]

    return captions


def problem(response, code: str) -> dict:
    """Check that a response is the complete problem `code`, and return its body."""
    body = response.json()
    assert body["code"] == code, body
    assert response.status_code == ERRORS[code].status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == body["request_id"]
    ProblemBody.model_validate(body)
    return body
