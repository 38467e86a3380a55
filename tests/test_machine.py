"""What the machine offers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from model.cpu import choose_decoder_precision
from model.cpu import can_pack

from model import ConfigError, Precision, available_threads, choose_precision
from model import machine as machine_module


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_threads_come_from_the_quota_of_the_container(tmp_path, monkeypatch, text, cores):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    monkeypatch.setattr(machine_module, "_QUOTA_FILES", (str(file),))
    assert machine_module._quota() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert available_threads() == {None: 16, 1.5: 2, 0.5: 1}[cores]


def test_the_older_quota_files_are_read_too(tmp_path, monkeypatch):
    (tmp_path / "quota").write_text("200000")
    (tmp_path / "period").write_text("100000")
    monkeypatch.setattr(machine_module, "_QUOTA_FILES", (str(tmp_path / "none"),))
    monkeypatch.setattr(machine_module, "_QUOTA_FILE_V1", (str(tmp_path / "quota"), str(tmp_path / "period")))
    assert machine_module._quota() == 2


def test_the_numeric_type_is_chosen_by_a_trial_and_told():
    chosen = choose_precision("auto")
    assert chosen.dtype in (torch.float32, torch.bfloat16)
    assert "timed trial" in chosen.reason
    assert choose_precision("float32").dtype == torch.float32
    assert choose_precision("bfloat16").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="int8"):
        choose_precision("int8")


def test_only_large_decoders_are_tried(monkeypatch, tiny_network):
    halved, exact = Precision(torch.bfloat16, "as asked"), Precision(torch.float32, "as asked")
    decoder = tiny_network.decoder.float()
    assert choose_decoder_precision(decoder, halved).dtype == torch.float32
    monkeypatch.setattr(machine_module, "_LARGE", 1)
    assert "times as fast" in choose_decoder_precision(decoder, halved).reason
    assert choose_decoder_precision(decoder, exact) == Precision(torch.float32, "float32")
    assert decoder.token_embedding.weight.dtype == torch.float32, "a trial leaves the decoder as it was"


def test_a_packed_decoder_gives_what_a_plain_one_gives(tiny_network):
    plain = copy.deepcopy(tiny_network.decoder).to(torch.bfloat16)
    packed = copy.deepcopy(plain)
    packed.pack()
    assert can_pack() == (packed.packed_head is not None)
    image = torch.randn(2, 13, plain.config.encoder_hidden_size, dtype=torch.bfloat16)
    tokens = torch.randint(3, 30, (3, 5))
    with torch.inference_mode():
        results = []
        for decoder in (plain, packed):
            state = decoder.start(image, (0, 1, 1))
            together, weights, _ = decoder(tokens, state, weights=True)
            for column in range(tokens.size(1)):
                step, _, state = decoder(tokens[:, column : column + 1], state)
            results.append((together, step, *weights))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


def test_torchvision_imports_whatever_build_of_torch_there_is():
    code = "import model, torchvision, timm; from torchvision.transforms import v2; print(v2.Resize(4))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_operators_are_declared_only_where_torchvision_would_not_load():
    code = (
        "import torch, model.torchvision_operators as t\n"
        "loads = t._extension_loads()\n"
        "assert bool(t._kept) == (not loads), (t._kept, loads)\n"
        "assert t.declare_missing_operators() == (not loads)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
