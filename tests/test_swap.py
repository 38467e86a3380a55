"""Replacing a checkpoint while requests arrive: none is lost, and each is answered by one of the two alone."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi.testclient import TestClient

from model import Captioner, CaptionNetwork, Checkpoint, DevicePolicy, ImageConfig, load_checkpoint, save_checkpoint
from service import Settings, create_app
from tests.conftest import problem
from tests.helpers import paused, wait_until
from tests.networks import redraw, tiny_config
from tests.test_admission import SECONDS

ADMIN = {"x-api-key": "the admin's"}


@pytest.fixture
def serve(tiny_captioner, tmp_path):
    """Return a function that serves a captioner with an admin's key, and a user's key if requested."""
    (tmp_path / "admin").write_text("the admin's\n")
    (tmp_path / "users").write_text("a user's\n")
    with contextlib.ExitStack() as stack:

        def start(captioner: Captioner = tiny_captioner, users: bool = False) -> TestClient:
            keys = {"keys_file": str(tmp_path / "users")} if users else {}
            settings = Settings(admin_keys_file=str(tmp_path / "admin"), **keys)
            return stack.enter_context(TestClient(create_app({"tiny": captioner}, settings), raise_server_exceptions=False))

        yield start


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """Another network for another image size, as a checkpoint folder."""
    torch.manual_seed(1)
    config = dataclasses.replace(tiny_config(tokenizer.size), image=ImageConfig(height=32, width=32))
    network = CaptionNetwork(config)
    redraw(network, 10)
    path = tmp_path_factory.mktemp("checkpoints") / "other"
    save_checkpoint(path, config, network.state_dict(), tokenizer, "# Another card")
    return path


def load(client: TestClient, checkpoint: object) -> dict:
    response = client.post("/v1/models/tiny/load", json={"checkpoint": str(checkpoint)}, headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_loaded_checkpoint_answers_as_it_does_alone(serve, folder, image_bytes):
    client = serve()
    before = client.post("/v1/captions", content=image_bytes).json()
    model = load(client, folder)
    assert model["name"] == "tiny"
    assert model["grid"] == {"rows": 4, "columns": 4}
    assert client.get("/v1/models").json()["data"] == [model]
    after = client.post("/v1/captions", content=image_bytes).json()
    assert (before["grid"]["rows"], after["grid"]["rows"]) == (3, 4)
    alone = Captioner.from_checkpoint(load_checkpoint(folder))
    with TestClient(create_app({"tiny": alone}, Settings())) as other:
        assert after["captions"] == other.post("/v1/captions", content=image_bytes).json()["captions"]


def test_a_loaded_checkpoint_has_the_device_policy_of_the_old_one(serve, folder, tokenizer):
    """The policy is neither chosen again nor measured: a reason that no choice has stays."""
    policy = DevicePolicy(dtype=torch.bfloat16, reason="the old one's")
    checkpoint = Checkpoint(CaptionNetwork(tiny_config(tokenizer.size)), tokenizer, "# A card")
    client = serve(Captioner.from_checkpoint(checkpoint, policy))
    load(client, folder)
    new = client.app.state.engine.captioners["tiny"]
    assert new.card == "# Another card"
    assert new.policy == policy
    assert 'dtype="bfloat16"' in client.get("/metrics").text


def test_all_requests_that_arrive_during_loads_are_answered(serve, folder, image_bytes, tmp_path, tiny_captioner):
    first = tmp_path / "first"
    weights = tiny_captioner.runtime.state_dict()
    save_checkpoint(first, tiny_captioner.config, weights, tiny_captioner.tokenizer, "# A tiny card")
    client, responses, stopped = serve(), [], threading.Event()

    def post_until_stopped() -> None:
        while not stopped.is_set():
            responses.append(client.post("/v1/captions?strategy=greedy", content=image_bytes))

    def newest_rows() -> int:
        return responses[-1].json().get("grid", {}).get("rows", 0)

    with ThreadPoolExecutor(6) as threads:
        try:
            clients = [threads.submit(post_until_stopped) for _ in range(6)]
            wait_until(lambda: responses)
            for source, rows in ((folder, 4), (first, 3), (folder, 4)):
                load(client, source)
                wait_until(lambda rows=rows: newest_rows() == rows)
        finally:
            stopped.set()
    assert not any(future.exception() for future in clients)
    assert {response.status_code for response in responses} == {200}
    num_words = 0
    for body in (response.json() for response in responses):
        size = {3: 12, 4: 16}[body["grid"]["rows"]]  # the patches of the two checkpoints
        maps = [word["map"]["values"] for caption in body["captions"] for word in caption["words"]]
        assert all(len(values) == size for values in maps)
        num_words += len(maps)
    assert num_words


def test_the_old_checkpoint_answers_accepted_requests_and_is_then_freed(serve, folder, tiny_captioner, image_bytes):
    captioner, hook = paused(tiny_captioner)
    reference, client = weakref.ref(captioner), serve(captioner)
    gc.freeze()  # its memory must be freed without a garbage collection: that does not examine what existed before
    try:
        with ThreadPoolExecutor(1) as thread:
            response = thread.submit(client.post, "/v1/captions", content=image_bytes)
            assert hook.entered.wait(SECONDS)
            load(client, folder)
            hook.go_on.set()
            assert response.result(SECONDS).json()["grid"]["rows"] == 3
        del captioner, response
        wait_until(lambda: reference() is None)
    finally:
        gc.unfreeze()


def test_a_checkpoint_that_cannot_be_loaded_changes_nothing(serve, folder, image_bytes, tmp_path):
    client, broken = serve(), tmp_path / "broken"
    shutil.copytree(folder, broken)
    before = client.get("/v1/models").json()
    for path in (tmp_path / "missing", tmp_path):
        response = client.post("/v1/models/tiny/load", json={"checkpoint": str(path)}, headers=ADMIN)
        problem(response, "invalid_option")
        assert response.json()["errors"][0]["pointer"] == "/checkpoint"
    for text in ("0" * 1000, "a\0b", "hub:", ""):
        problem(client.post("/v1/models/tiny/load", json={"checkpoint": text}, headers=ADMIN), "invalid_option")
    (broken / "README.md").write_bytes(b"\xff\xfe no text")
    problem(client.post("/v1/models/tiny/load", json={"checkpoint": str(broken)}, headers=ADMIN), "invalid_option")
    problem(client.post("/v1/models/tiny/load", json={"folder": "x"}, headers=ADMIN), "invalid_option")
    problem(client.post("/v1/models/other/load", json={"checkpoint": "x"}, headers=ADMIN), "unknown_model")
    problem(client.post("/v1/models/tiny/load", content=b"no json", headers=ADMIN), "broken_json")
    assert client.get("/v1/models").json() == before
    assert client.post("/v1/captions", content=image_bytes).status_code == 200


def test_only_an_admin_loads(serve, client, folder, image_bytes):
    guarded, body, user = serve(users=True), {"checkpoint": str(folder)}, {"x-api-key": "a user's"}
    problem(guarded.post("/v1/models/tiny/load", json=body), "missing_key")
    problem(guarded.post("/v1/models/tiny/load", json=body, headers=user), "wrong_key")
    problem(guarded.post("/v1/captions", content=image_bytes, headers=ADMIN), "wrong_key")
    assert guarded.post("/v1/captions", content=image_bytes, headers=user).status_code == 200
    problem(client.post("/v1/models/tiny/load", json=body), "unknown_path")  # without a file of admin keys
