"""Checkpoints on a hub: fetched, pinned, converted once, off the network; ours pushed and pulled. The hub is on 127.0.0.1."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file

from model import Captioner, CheckpointError, checkpoint_folder, load_checkpoint, prepare, save_checkpoint
from model.__main__ import main
from model.hub import is_hub_id
from service import Settings
from service.runtime.checkpoints import _named, load_captioners
from tests.loopback_hub import Hub, commit_of, serving
from tests.test_convert import photographs, png, saved

NAME = "somebody/tiny-captions"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, and an empty cache that goes to it."""
    served = Hub()
    with serving(served) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield served


@pytest.fixture
def source(hub, tmp_path):
    """A tiny ViT-GPT2 as its author would have published it."""
    folder = tmp_path / "source"
    saved("vit_gpt2", folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny captions\n")
    (folder / "onnx").mkdir()
    (folder / "onnx/model.safetensors").write_bytes(b"another program's")
    (folder / "tf_model.h5").write_bytes(b"another program's")
    hub.put(NAME, folder)
    return folder


def same_weights(first, second):
    one, other = (load_checkpoint(folder).network.state_dict() for folder in (first, second))
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_hub_id_converts_to_what_its_files_convert_to(hub, source, tmp_path):
    assert main(["convert", NAME, str(tmp_path / "hub")]) == 0
    assert main(["convert", str(source), str(tmp_path / "local")]) == 0
    assert same_weights(tmp_path / "hub", tmp_path / "local")
    found = load_checkpoint(tmp_path / "hub")
    assert found.config.license == "apache-2.0"
    assert f"{NAME} at {commit_of(NAME, 0)}" in found.card
    assert not any("onnx" in name or name.endswith((".h5", ".bin")) for name in hub.downloads)


def test_a_revision_is_pinned(hub, source, tmp_path):
    old = commit_of(NAME, 0)
    weights = source / "model.safetensors"
    first = load_file(weights)
    save_file(first | {"encoder.layernorm.bias": first["encoder.layernorm.bias"] + 1}, weights)
    hub.put(NAME, source)
    assert main(["convert", f"{NAME}@{old}", str(tmp_path / "old")]) == 0
    assert main(["convert", NAME, str(tmp_path / "new")]) == 0
    assert not same_weights(tmp_path / "old", tmp_path / "new")
    save_file(first, weights)
    assert main(["convert", str(source), str(tmp_path / "local")]) == 0
    assert same_weights(tmp_path / "old", tmp_path / "local")


def test_the_service_converts_once_and_then_needs_no_network(hub, source, monkeypatch):
    settings = Settings(checkpoint=f"hub:{NAME}", dtype="float32")
    ((name, captioner),) = load_captioners(settings).items()
    assert name == "tiny-captions"
    view = prepare(png(next(photographs())), captioner.image_config)
    wanted = captioner.caption([view])[0].captions[0]
    count = len(hub.downloads)

    monkeypatch.setattr("model.hub.convert_source", lambda *_, **__: pytest.fail("it was converted before"))
    assert Captioner.load(f"hub:{NAME}", dtype="float32").caption([view])[0].captions[0].text == wanted.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoint_folder(f"hub:{NAME}").is_dir()
    assert len(hub.downloads) == count


def test_a_repository_that_has_pickles_only_is_read_as_weights(hub, source, tmp_path):
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    hub.put("somebody/old", source)
    assert main(["convert", "somebody/old", str(tmp_path / "old")]) == 0
    assert main(["convert", NAME, str(tmp_path / "new")]) == 0
    assert same_weights(tmp_path / "old", tmp_path / "new")


def test_what_a_hub_does_not_have_is_told_and_nothing_is_written(hub, source, tmp_path, capsys, monkeypatch):
    for wanted in ("somebody/nothing", f"{NAME}@v9"):
        assert main(["convert", wanted, str(tmp_path / "ours")]) == 1
        told = capsys.readouterr().err
        assert f"{wanted.partition('@')[0]} on the hub: it is not there, or private: check the name and revision" in told
    assert main(["convert", "no hub id", str(tmp_path / "ours")]) == 1
    assert "does not exist; name a folder" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="it is not in the cache, and HF_HUB_OFFLINE keeps this off the network"):
        checkpoint_folder("hub:somebody/never-fetched")
    assert not (tmp_path / "ours").exists()


def test_a_checkpoint_pushed_is_the_one_pulled(hub, tiny_network, tokenizer, tmp_path, capsys):
    config = dataclasses.replace(tiny_network.config, license="CC BY 4.0")
    folder = tmp_path / "mine"
    card = "# Mine\n"
    save_checkpoint(folder, config, tiny_network.state_dict(), tokenizer, card, shard_bytes=20_000)
    assert main(["push", str(folder), "me/mine"]) == 0
    assert commit_of("me/mine", 1) in capsys.readouterr().out
    shards = [name for name in hub.repositories["me/mine"][-1] if name.startswith("weights-")]
    assert len(shards) > 1

    save_checkpoint(folder, config, tiny_network.state_dict(), tokenizer, card)  # one file instead of shards
    assert main(["push", str(folder), "me/mine"]) == 0
    there = hub.repositories["me/mine"][-1]
    assert [name for name in there if name.startswith("weights")] == ["weights.safetensors"]
    told = ModelCard(there["README.md"].decode()).data
    assert told.license == "cc-by-4.0"
    assert told.pipeline_tag == "image-to-text"
    assert (folder / "README.md").read_text() == card, "pushing changes nothing here"

    assert main(["pull", "me/mine", str(tmp_path / "pulled")]) == 0
    assert same_weights(folder, tmp_path / "pulled")
    assert not any(path.is_symlink() for path in (tmp_path / "pulled").iterdir())
    assert same_weights(folder, checkpoint_folder("hub:me/mine"))


def test_processes_that_convert_at_once_agree(hub, source):
    def start(_):
        return load_checkpoint(checkpoint_folder(f"hub:{NAME}")).config.decoder

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, range(8)))
    assert found == found[:1] * 8
    kept = checkpoint_folder(f"hub:{NAME}")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name], "nothing else is left there"


def test_push_leaves_other_peoples_weights_alone(hub, source, tiny_network, tokenizer, tmp_path, capsys):
    folder = tmp_path / "mine"
    config = dataclasses.replace(tiny_network.config, license="MIT")
    save_checkpoint(folder, config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    (folder / ".env").write_text("SECRET=1")
    assert main(["push", str(folder), NAME]) == 1
    assert "it holds model.safetensors, another program's" in capsys.readouterr().err
    assert main(["push", str(folder), "me/mine"]) == 0
    assert ".env" not in hub.repositories["me/mine"][-1]


def test_the_name_of_a_checkpoint_from_a_hub_is_its_own():
    assert _named("hub:org/name@v=1") == ("name", "hub:org/name@v=1")
    assert _named("first=hub:org/name") == ("first", "hub:org/name")
    assert not is_hub_id("../source")
    assert not is_hub_id("/some/where/else")


def test_a_repository_that_is_not_whole_is_not_pulled(hub, tiny_network, tokenizer, tmp_path, capsys):
    folder = tmp_path / "mine"
    save_checkpoint(folder, tiny_network.config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    hub.put("me/mine", folder)
    assert main(["pull", "me/mine", str(tmp_path / "pulled")]) == 1
    assert "it is damaged or cut off" in capsys.readouterr().err
    assert not (tmp_path / "pulled").exists()


def test_push_refuses_a_checkpoint_without_a_license_or_a_token(hub, tiny_network, tokenizer, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "mine"
    bare = dataclasses.replace(tiny_network.config, license="")
    save_checkpoint(folder, bare, tiny_network.state_dict(), tokenizer, "# Mine\n")
    assert main(["push", str(folder), "me/mine"]) == 1
    assert "has no license" in capsys.readouterr().err
    licensed = dataclasses.replace(tiny_network.config, license="research only; see the card")
    save_checkpoint(folder, licensed, tiny_network.state_dict(), tokenizer, "# Mine\n")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    assert main(["push", str(folder), "me/mine"]) == 1
    assert "hf auth login" in capsys.readouterr().err
    assert hub.repositories == {}


def test_ours_are_pulled_and_others_converted(hub, source, tiny_network, tokenizer, tmp_path, capsys):
    assert main(["pull", NAME, str(tmp_path / "out")]) == 1
    assert "bring it with `convert`" in capsys.readouterr().err
    folder = tmp_path / "mine"
    save_checkpoint(folder, tiny_network.config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    hub.put("me/mine", folder)
    assert main(["convert", "me/mine", str(tmp_path / "out")]) == 1
    assert "fetch it with `pull`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
