"""Weights of sources as users have them: shards, and shards that are missing or broken."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import load_file

from model import load_checkpoint
from model.pretrained import convert_source
from tests.odd_sources import expect_refused, write
from tests.test_convert import edit

INDEX = "pytorch_model.bin.index.json"
FIRST, SECOND = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"


def shard(folder, ending=".bin"):
    """Split model.safetensors into two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {FIRST: names[: len(names) // 2], SECOND: names[len(names) // 2 :]}
    for file, part in parts.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    write(folder, INDEX, {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}})


def test_shards_of_pickles_give_the_same_checkpoint(copy_of, tmp_path):
    folder = copy_of("trocr")
    convert_source(folder, tmp_path / "whole")
    shard(folder)
    convert_source(folder, tmp_path / "sharded")
    one, other = (load_checkpoint(tmp_path / name).network.state_dict() for name in ("whole", "sharded"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class Harmful:
    """What a hostile pickle would execute."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def change_map(change):
    return lambda f: edit(f, INDEX, lambda index: change(index["weight_map"]))


BROKEN_SHARDS = [
    (lambda f: (f / SECOND).unlink(), f"{SECOND} is missing"),
    (lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-300]), f"{FIRST} cannot be read as weights"),
    (lambda f: (f / FIRST).write_bytes(b""), f"{FIRST} cannot be read as weights"),
    (lambda f: torch.save([1], f / FIRST), f"{FIRST} does not contain named tensors"),
    (lambda f: (f / FIRST).write_bytes(pickle.dumps({"x": Harmful()})), f"{FIRST} cannot be read as weights"),
    (lambda f: torch.save({"x": Harmful()}, f / FIRST), f"{FIRST} cannot be read as weights"),
    (lambda f: torch.save({7: torch.ones(1)}, f / FIRST), f"{FIRST} does not contain named tensors"),
    (lambda f: write(f, INDEX, "{"), rf"{INDEX} is not JSON \(line 1, column 2\)"),
    (lambda f: write(f, INDEX, "[" * 100_000), f"{INDEX} is not JSON"),
    (lambda f: write(f, INDEX, f'{{"a": {"9" * 5000}}}'), f"{INDEX} is not JSON"),
    (lambda f: write(f, INDEX, []), f"{INDEX} is not a JSON object"),
    (lambda f: write(f, INDEX, {"weight_map": [1]}), f"{INDEX} is not an index of shards"),
    (lambda f: write(f, INDEX, {"weight_map": {"a": 1}}), f"{INDEX} is not an index of shards"),
    (lambda f: (f / INDEX).write_bytes(b"\xff\xfe"), f"{INDEX} cannot be read"),
    (change_map(lambda m: m.update(x="../a.bin")), "names '../a.bin'; shards must be in the same folder"),
    (change_map(lambda m: m.update(x="")), "shards must be in the same folder"),
    (change_map(lambda m: m.update(missing=SECOND)), f"its shard {SECOND} differ in missing"),
    (change_map(lambda m: m.pop(sorted(m)[-1])), f"its shard {SECOND} differ in encoder"),
    (change_map(lambda m: m.update({sorted(m)[0]: SECOND})), f"its shard {FIRST} differ in decoder"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN_SHARDS)
def test_broken_shards_are_an_error_that_names_the_file(change, message, copy_of, tmp_path):
    folder = copy_of("trocr")
    shard(folder)
    change(folder)
    expect_refused(folder, tmp_path, message)
