"""What the machine offers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from model import ConfigError, available_threads, choose_precision
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
