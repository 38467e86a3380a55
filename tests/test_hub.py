"""Checkpoints on a hub: downloaded, pinned, converted once, used offline; ours are pushed and pulled. The hub is local."""

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
from service.runtime.checkpoints import _name_and_source, load_captioners
from tests.loopback_hub import Hub, commit_of, serving
from tests.test_convert import png, random_images, saved

NAME = "organization/tiny-captions"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local hub that huggingface_hub uses, and an empty cache."""
    local_hub = Hub()
    with serving(local_hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield local_hub


@pytest.fixture
def source(hub, tmp_path):
    """A tiny ViT-GPT2 that is published on the hub."""
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


def test_converting_a_hub_id_equals_converting_its_files(hub, source, tmp_path):
    assert main(["convert", NAME, str(tmp_path / "hub")]) == 0
    assert main(["convert", str(source), str(tmp_path / "local")]) == 0
    assert same_weights(tmp_path / "hub", tmp_path / "local")
    checkpoint = load_checkpoint(tmp_path / "hub")
    assert checkpoint.config.license == "apache-2.0"
    assert f"{NAME} at {commit_of(NAME, 0)}" in checkpoint.card
    assert not any("onnx" in name or name.endswith((".h5", ".bin")) for name in hub.downloads)


def test_a_revision_selects_its_own_weights(hub, source, tmp_path):
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


def test_a_checkpoint_is_converted_once_and_then_needs_no_network(hub, source, monkeypatch):
    settings = Settings(checkpoint=f"hub:{NAME}", dtype="float32")
    ((name, captioner),) = load_captioners(settings).items()
    assert name == "tiny-captions"
    view = prepare(png(next(random_images())), captioner.image_config)
    expected = captioner.caption([view])[0].captions[0]
    count = len(hub.downloads)

    converted = checkpoint_folder(f"hub:{NAME}")
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in converted.iterdir()}
    assert Captioner.load(f"hub:{NAME}", dtype="float32").caption([view])[0].captions[0].text == expected.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoint_folder(f"hub:{NAME}") == converted
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in converted.iterdir()} == before
    assert len(hub.downloads) == count


def test_a_repository_with_pickles_only_is_read_as_weights(hub, source, tmp_path):
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    hub.put("organization/old", source)
    assert main(["convert", "organization/old", str(tmp_path / "old")]) == 0
    assert main(["convert", NAME, str(tmp_path / "new")]) == 0
    assert same_weights(tmp_path / "old", tmp_path / "new")


def test_a_repository_or_revision_that_does_not_exist_is_an_error_and_writes_nothing(hub, source, tmp_path, capsys, monkeypatch):
    for name in ("organization/missing", f"{NAME}@v9"):
        assert main(["convert", name, str(tmp_path / "ours")]) == 1
        message = capsys.readouterr().err
        assert f"{name.partition('@')[0]} on the hub: it does not exist, or is private: check the name and revision" in message
    assert main(["convert", "no hub id", str(tmp_path / "ours")]) == 1
    assert "does not exist; name a folder" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="it is not in the cache, and HF_HUB_OFFLINE forbids requests"):
        checkpoint_folder("hub:organization/never-downloaded")
    assert not (tmp_path / "ours").exists()


def test_a_pulled_checkpoint_equals_the_pushed_one(hub, tiny_network, tokenizer, tmp_path, capsys):
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
    files = hub.repositories["me/mine"][-1]
    assert [name for name in files if name.startswith("weights")] == ["weights.safetensors"]
    metadata = ModelCard(files["README.md"].decode()).data
    assert metadata.license == "cc-by-4.0"
    assert metadata.pipeline_tag == "image-to-text"
    assert (folder / "README.md").read_text() == card, "pushing does not change the folder"

    assert main(["pull", "me/mine", str(tmp_path / "pulled")]) == 0
    assert same_weights(folder, tmp_path / "pulled")
    assert not any(path.is_symlink() for path in (tmp_path / "pulled").iterdir())
    assert same_weights(folder, checkpoint_folder("hub:me/mine"))


def test_concurrent_conversions_give_the_same_checkpoint(hub, source):
    def load(_):
        return load_checkpoint(checkpoint_folder(f"hub:{NAME}")).config.decoder

    with ThreadPoolExecutor(4) as pool:
        configs = list(pool.map(load, range(8)))
    assert configs == configs[:1] * 8
    kept = checkpoint_folder(f"hub:{NAME}")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name], "no temporary folder is left"


def test_push_does_not_write_next_to_weights_of_another_program(hub, source, tiny_network, tokenizer, tmp_path, capsys):
    folder = tmp_path / "mine"
    config = dataclasses.replace(tiny_network.config, license="MIT")
    save_checkpoint(folder, config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    (folder / ".env").write_text("SECRET=1")
    assert main(["push", str(folder), NAME]) == 1
    assert "it contains model.safetensors of another program" in capsys.readouterr().err
    assert main(["push", str(folder), "me/mine"]) == 0
    assert ".env" not in hub.repositories["me/mine"][-1]


def test_the_name_of_a_checkpoint_from_a_hub_is_its_repositorys():
    assert _name_and_source("hub:org/name@v=1") == ("name", "hub:org/name@v=1")
    assert _name_and_source("first=hub:org/name") == ("first", "hub:org/name")
    assert not is_hub_id("../source")
    assert not is_hub_id("/another/folder")


def test_an_incomplete_repository_is_not_pulled(hub, tiny_network, tokenizer, tmp_path, capsys):
    folder = tmp_path / "mine"
    save_checkpoint(folder, tiny_network.config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    hub.put("me/mine", folder)
    assert main(["pull", "me/mine", str(tmp_path / "pulled")]) == 1
    assert "it is damaged or truncated" in capsys.readouterr().err
    assert not (tmp_path / "pulled").exists()


def test_push_refuses_a_checkpoint_without_a_license_or_a_token(hub, tiny_network, tokenizer, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "mine"
    unlicensed = dataclasses.replace(tiny_network.config, license="")
    save_checkpoint(folder, unlicensed, tiny_network.state_dict(), tokenizer, "# Mine\n")
    assert main(["push", str(folder), "me/mine"]) == 1
    assert "has no license" in capsys.readouterr().err
    licensed = dataclasses.replace(tiny_network.config, license="research only; see the card")
    save_checkpoint(folder, licensed, tiny_network.state_dict(), tokenizer, "# Mine\n")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    assert main(["push", str(folder), "me/mine"]) == 1
    assert "hf auth login" in capsys.readouterr().err
    assert hub.repositories == {}


def test_pull_is_for_our_checkpoints_and_convert_for_others(hub, source, tiny_network, tokenizer, tmp_path, capsys):
    assert main(["pull", NAME, str(tmp_path / "out")]) == 1
    assert "is not a checkpoint of this program; use `convert`" in capsys.readouterr().err
    folder = tmp_path / "mine"
    save_checkpoint(folder, tiny_network.config, tiny_network.state_dict(), tokenizer, "# Mine\n")
    hub.put("me/mine", folder)
    assert main(["convert", "me/mine", str(tmp_path / "out")]) == 1
    assert "is a checkpoint of this program already; download it with `pull`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
