"""Another checkpoint in the place of one, while requests come: none is lost, and each is answered by one of the two, whole."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import threading
import time
import weakref

import pytest
import torch
from fastapi.testclient import TestClient

from model import Captioner, CaptionNetwork, ImageConfig, Precision, save_checkpoint
from service import Settings, create_app
from service.runtime.checkpoints import load_captioner
from tests.conftest import problem, redraw, tiny_config
from tests.test_admission import Slow

ADMIN = {"x-api-key": "the admin's"}


@pytest.fixture
def served(tiny_captioner, tmp_path):
    """Return a function that serves a captioner with an admin's key, and users' keys where asked for."""
    (tmp_path / "admin").write_text("the admin's\n")
    (tmp_path / "users").write_text("a user's\n")
    made = []

    def serve(captioner: Captioner = tiny_captioner, users: bool = False) -> TestClient:
        keys = {"keys_file": str(tmp_path / "users")} if users else {}
        settings = Settings(admin_keys_file=str(tmp_path / "admin"), **keys)
        found = TestClient(create_app({"tiny": captioner}, settings), raise_server_exceptions=False)
        made.append(found.__enter__())
        return found

    yield serve
    for found in made:
        found.__exit__(None, None, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """Another network of another picture size, as a checkpoint folder."""
    torch.manual_seed(1)
    config = dataclasses.replace(tiny_config(tokenizer.size), image=ImageConfig(height=32, width=32))
    network = CaptionNetwork(config)
    redraw(network, 10)
    path = tmp_path_factory.mktemp("checkpoints") / "other"
    save_checkpoint(path, config, network.state_dict(), tokenizer, "# Another card")
    return path


def test_a_checkpoint_takes_the_place_of_another(served, folder, picture):
    client = served()
    before = client.post("/v1/captions", content=picture).json()
    answer = client.post("/v1/models/tiny/load", json={"checkpoint": str(folder)}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == "tiny"
    assert answer.json()["grid"] == {"rows": 4, "columns": 4}
    assert client.get("/v1/models").json()["data"] == [answer.json()]
    after = client.post("/v1/captions", content=picture).json()
    assert (before["grid"]["rows"], after["grid"]["rows"]) == (3, 4)
    alone = load_captioner(folder, Precision(torch.float32, "as served"))
    with TestClient(create_app({"tiny": alone}, Settings())) as other:
        assert after["captions"] == other.post("/v1/captions", content=picture).json()["captions"]


def test_requests_that_come_meanwhile_are_all_answered(served, folder, picture, tmp_path, tiny_captioner):
    first = tmp_path / "first"
    weights = tiny_captioner._network.state_dict()
    save_checkpoint(first, tiny_captioner.config, weights, tiny_captioner._tokenizer, "# A tiny card")
    client, found, stopped = served(), [], threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            answer = client.post("/v1/captions?strategy=greedy", content=picture)
            cells = {len(word["map"]["values"]) for caption in answer.json()["captions"] for word in caption["words"]}
            found.append((answer.status_code, answer.json()["grid"]["rows"], tuple(cells)))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for source in (folder, first, folder):
        answer = client.post("/v1/models/tiny/load", json={"checkpoint": str(source)}, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        time.sleep(0.3)
    stopped.set()
    for thread in threads:
        thread.join()
    assert {entry[:2] for entry in found} == {(200, 3), (200, 4)}
    assert all(cells in ((12,), (16,), ()) and (rows == 3) == (cells != (16,)) for _, rows, cells in found if cells)


def test_who_was_accepted_before_is_answered_by_the_old_one_which_is_then_given_back(served, folder, tiny_captioner, picture):
    slow = Slow(tiny_captioner)
    gone, client, answers = weakref.ref(slow), served(slow), []
    gc.freeze()  # nothing may be left to the collector: it does not look at what was there before
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/captions", content=picture)))
    thread.start()
    slow.entered.wait(20)
    assert client.post("/v1/models/tiny/load", json={"checkpoint": str(folder)}, headers=ADMIN).status_code == 200
    slow.go_on.set()
    thread.join()
    assert answers[0].json()["grid"]["rows"] == 3
    del slow
    for _ in range(100):
        if gone() is None:
            break
        time.sleep(0.05)
    gc.unfreeze()
    assert gone() is None, "its memory is given back"


def test_what_cannot_be_loaded_changes_nothing(served, folder, picture, tmp_path):
    client, broken = served(), tmp_path / "broken"
    shutil.copytree(folder, broken)
    before = client.get("/v1/models").json()
    for path in (tmp_path / "nothing", tmp_path):
        answer = client.post("/v1/models/tiny/load", json={"checkpoint": str(path)}, headers=ADMIN)
        problem(answer, "invalid_option")
        assert answer.json()["errors"][0]["pointer"] == "/checkpoint"
    for odd in ("0" * 1000, "a\0b", "hub:", ""):
        problem(client.post("/v1/models/tiny/load", json={"checkpoint": odd}, headers=ADMIN), "invalid_option")
    (broken / "README.md").write_bytes(b"\xff\xfe no text")
    problem(client.post("/v1/models/tiny/load", json={"checkpoint": str(broken)}, headers=ADMIN), "invalid_option")
    problem(client.post("/v1/models/tiny/load", json={"folder": "x"}, headers=ADMIN), "invalid_option")
    problem(client.post("/v1/models/other/load", json={"checkpoint": "x"}, headers=ADMIN), "unknown_model")
    problem(client.post("/v1/models/tiny/load", content=b"no json", headers=ADMIN), "broken_json")
    assert client.get("/v1/models").json() == before
    assert client.post("/v1/captions", content=picture).status_code == 200


def test_only_an_admin_loads(served, client, folder, picture):
    guarded, body, user = served(users=True), {"checkpoint": str(folder)}, {"x-api-key": "a user's"}
    problem(guarded.post("/v1/models/tiny/load", json=body), "missing_key")
    problem(guarded.post("/v1/models/tiny/load", json=body, headers=user), "wrong_key")
    problem(guarded.post("/v1/captions", content=picture, headers=ADMIN), "wrong_key")
    assert guarded.post("/v1/captions", content=picture, headers=user).status_code == 200
    problem(client.post("/v1/models/tiny/load", json=body), "unknown_path")  # where nobody is an admin
