"""Checkpoint folders: reading is strict, writing is atomic, and an error names the file, field or tensor."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from model import CaptionNetwork, CheckpointError, GenerationOptions, MapConfig, load_checkpoint, read_config, save_checkpoint
from tests.networks import tiny_config


@pytest.fixture
def folder(tmp_path, tokenizer):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "checkpoint", config, CaptionNetwork(config).state_dict(), tokenizer, "# Card")
    return tmp_path / "checkpoint"


def change_weights(folder, change) -> None:
    tensors = safetensors.torch.load_file(folder / "weights.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "weights.safetensors")


def change_config(folder, change) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "read", "default"),
    [
        (lambda document: document["encoder"].pop("timm_model"), lambda config: config.encoder.timm_model, ""),
        (lambda document: document["decoder"].pop("layer_norm_eps"), lambda config: config.decoder.layer_norm_eps, 1e-5),
        (lambda document: document["maps"].pop("head_mean"), lambda config: config.maps.head_mean, "arithmetic"),
        (lambda document: document.pop("maps"), lambda config: config.maps, MapConfig()),
        (lambda document: document.pop("generation"), lambda config: config.generation, GenerationOptions()),
        (lambda document: document.pop("language_token_ids"), lambda config: config.language_token_ids, ()),
        (lambda document: document.pop("unconditional"), lambda config: config.unconditional, "learned"),
    ],
)
def test_a_missing_field_takes_its_default(folder, change, read, default):
    change_config(folder, lambda document: document["maps"].update(head_mean="geometric"))
    change_config(folder, change)
    assert read(load_checkpoint(folder).config) == default
    assert read(read_config(folder)) == default


def test_an_encoder_cannot_be_an_address(folder):
    change_config(folder, lambda document: document["encoder"].update(timm_model="hf-hub:organization/vit"))
    with pytest.raises(CheckpointError, match="not an address"):
        load_checkpoint(folder)


def test_a_missing_tensor_is_named(folder):
    change_weights(folder, lambda tensors: tensors.pop("decoder.norm.weight"))
    with pytest.raises(CheckpointError, match=r"lacks decoder\.norm\.weight"):
        load_checkpoint(folder)


def test_an_unknown_tensor_is_named(folder):
    change_weights(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="unknown to its config: extra"):
        load_checkpoint(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder):
    change_weights(folder, lambda tensors: tensors.update({"no_image": torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=r"no_image is \[7\], its config requires \[24\]"):
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
        (lambda document: document.update(colors="red"), "unknown fields colors"),
        (lambda document: document["encoder"].update(color="red"), r"encoder has unknown fields color; EncoderConfig has"),
        (lambda document: document["decoder"].update(heads=2, width=9), "unknown fields heads, width"),
        (lambda document: document["decoder"].update(num_heads="two"), r"decoder\.num_heads is 'two'"),
        (lambda document: document["decoder"].update(num_heads=3), "multiple of num_heads, 3"),
        (lambda document: document["confidence"].update(word_offsets=[1]), r"word_offsets is \[1\]; it must be an object"),
        (lambda document: document["confidence"].update(word_offsets={"a": "b"}), r"word_offsets\.a is 'b'"),
        (lambda document: document.update(format="other-9"), "format 'other-9'"),
        (lambda document: document["maps"].update(heads=[[9, 9]]), "layer 9, head 9"),
        (lambda document: document["image"].update(height=25), "cannot be divided into patches of 8 pixels"),
        (lambda document: document["decoder"].update(vocab_size=999), "vocab_size of 999"),
    ],
)
def test_a_wrong_field_of_a_config_is_an_error_that_names_it(folder, change, message):
    change_config(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_config_that_is_not_a_json_object_is_an_error_that_names_it(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_checkpoint(folder)


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CheckpointError, match="missing' is not a folder"):
        load_checkpoint(tmp_path / "missing")


def test_shards_are_limited_in_size_and_have_the_names_of_the_hub(tmp_path, tokenizer):
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


def test_an_index_cannot_name_a_file_outside_its_folder(tmp_path, tokenizer):
    config = tiny_config(tokenizer.size)
    save_checkpoint(tmp_path / "c", config, CaptionNetwork(config).state_dict(), tokenizer, "", shard_bytes=12_000)
    path = tmp_path / "c/weights.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["no_image"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="must be in the same folder"):
        load_checkpoint(tmp_path / "c")


def test_a_write_replaces_a_checkpoint_and_a_failed_write_leaves_the_old_one(folder, tokenizer, monkeypatch):
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


def test_a_checkpoint_is_readable_and_replaceable_after_a_crash_between_the_two_renames(folder, tokenizer):
    before = load_checkpoint(folder)
    folder.rename(folder.with_name(".checkpoint.previous"))  # what such a crash leaves
    (folder.parent / ".checkpoint.partial").mkdir()
    (folder.parent / ".checkpoint.partial/config.json").write_text("{")

    assert read_config(folder) == before.config
    after = load_checkpoint(folder)
    assert (after.config, after.card) == (before.config, before.card)
    assert after.network.state_dict().keys() == before.network.state_dict().keys()
    assert all(torch.equal(value, before.network.state_dict()[name]) for name, value in after.network.state_dict().items())
    assert not folder.exists(), "reading changes nothing on the disk"

    config = tiny_config(tokenizer.size)
    save_checkpoint(folder, config, CaptionNetwork(config).state_dict(), tokenizer, "# New")
    assert load_checkpoint(folder).card == "# New"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoint"]


def test_a_write_that_fails_after_such_a_crash_restores_nothing_and_loses_nothing(folder, tokenizer, monkeypatch):
    folder.rename(folder.with_name(".checkpoint.previous"))

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    config = tiny_config(tokenizer.size)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(folder, config, CaptionNetwork(config).state_dict(), tokenizer, "# New")
    assert load_checkpoint(folder).card == "# Card"
