"""Checkpoint folders: strict when read, atomic when written, clear when wrong."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from model import CaptionNetwork, CheckpointError, load_checkpoint, save_checkpoint
from tests.conftest import tiny_config


@pytest.fixture
def folder(tmp_path, tokenizer):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "checkpoint", config, CaptionNetwork(config).state_dict(), tokenizer, "# Card")
    return tmp_path / "checkpoint"


def rewrite(folder, change) -> None:
    tensors = safetensors.torch.load_file(folder / "weights.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "weights.safetensors")


def test_a_checkpoint_from_before_a_field_was_added_is_read(folder):
    told = json.loads((folder / "config.json").read_text())
    del told["encoder"]["timm"]
    (folder / "config.json").write_text(json.dumps(told))
    assert load_checkpoint(folder).config.encoder.timm_model == ""


def test_an_encoder_is_named_and_not_fetched_from_an_address(folder):
    told = json.loads((folder / "config.json").read_text())
    told["encoder"]["timm"] = "hf-hub:somebody/vit"
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="not an address"):
        load_checkpoint(folder)


def test_a_missing_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop("decoder.norm.weight"))
    with pytest.raises(CheckpointError, match=r"lacks decoder\.norm\.weight"):
        load_checkpoint(folder)


def test_an_unknown_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update(surprise=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="surprise"):
        load_checkpoint(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder):
    rewrite(folder, lambda tensors: tensors.update({"no_image": torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=r"no_image is \[7\], its config makes it \[24\]"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_checkpoint(folder)


def test_a_truncated_weights_file_is_named(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("decoder"), "lacks decoder"),
        (lambda document: document["decoder"].pop("layer_norm_eps"), "lacks layer_norm_eps"),
        (lambda document: document["encoder"].update(color="red"), "unknown fields colour"),
        (lambda document: document["decoder"].update(heads="two"), r"decoder\.heads is 'two'"),
        (lambda document: document["decoder"].update(heads=3), "multiple of its heads"),
        (lambda document: document.update(format="other-9"), "format 'other-9'"),
        (lambda document: document["maps"].update(heads=[[9, 9]]), "layer 9, head 9"),
        (lambda document: document["image"].update(height=25), "cannot be tiled"),
        (lambda document: document["decoder"].update(vocabulary=999), "vocabulary of 999"),
    ],
)
def test_a_wrong_config_is_named_and_nothing_is_guessed(folder, change, message):
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_config_that_is_no_json_object_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_checkpoint(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no folder"):
        load_checkpoint(tmp_path / "nothing")


def test_shards_are_small_and_named_as_the_hub_names_them(tmp_path, tokenizer):
    config = tiny_config(tokenizer.size)
    weights = CaptionNetwork(config).state_dict()
    save_checkpoint(tmp_path / "c", config, weights, tokenizer, "", dtype=torch.float16, shard_bytes=12_000)
    shards = sorted(tmp_path.glob("c/weights-*-of-*.safetensors"))

    assert len(shards) > 1
    assert shards[0].name == f"weights-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "c/weights.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == weights.keys()
    loaded = load_checkpoint(tmp_path / "c").network.state_dict()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert all(torch.equal(value, weights[name].half().float()) for name, value in loaded.items())

    shards[1].unlink()
    with pytest.raises(CheckpointError, match=shards[1].name):
        load_checkpoint(tmp_path / "c")


def test_shards_cannot_point_out_of_their_folder(tmp_path, tokenizer):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "c", config, CaptionNetwork(config).state_dict(), tokenizer, "", shard_bytes=12_000)
    path = tmp_path / "c/weights.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["no_image"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="in the folder itself"):
        load_checkpoint(tmp_path / "c")


def test_writing_replaces_a_checkpoint_whole_and_a_failed_write_leaves_the_old_one(folder, tokenizer, monkeypatch):
    before = load_checkpoint(folder)
    config = tiny_config(tokenizer.size)
    save_checkpoint(folder, config, CaptionNetwork(config).state_dict(), tokenizer, "# Second")
    assert load_checkpoint(folder).card == "# Second"
    assert before.card == "# Card"

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(folder, config, CaptionNetwork(config).state_dict(), tokenizer, "# Third")
    assert load_checkpoint(folder).card == "# Second"


def test_a_replacement_that_was_cut_off_is_undone_by_the_next_write(folder, tokenizer):
    folder.rename(folder.with_name(".checkpoint.previous"))  # a crash between the two renames
    config = tiny_config(tokenizer.size)
    with pytest.raises(CheckpointError, match="no folder"):
        load_checkpoint(folder)
    save_checkpoint(folder, config, CaptionNetwork(config).state_dict(), tokenizer, "# New")
    assert load_checkpoint(folder).card == "# New"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoint"]
