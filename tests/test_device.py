"""The device policy and what is specific to CPUs."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from timm.layers import Mlp
from torch import nn

from model import ConfigError, DevicePolicy, available_threads, choose_device, choose_policy, is_out_of_memory
from model import cpu as cpu_module
from model import device as device_module
from model.cpu import can_pack, pack_linears
from model.layers import activation_child

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_threads_come_from_the_quota_of_the_container(tmp_path, monkeypatch, text, cores):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    monkeypatch.setattr(cpu_module, "_QUOTA_FILES", (str(file),))
    assert cpu_module._quota() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert available_threads() == {None: 16, 1.5: 2, 0.5: 1}[cores]


def test_the_quota_files_of_cgroups_version_1_are_read(tmp_path, monkeypatch):
    (tmp_path / "quota").write_text("200000")
    (tmp_path / "period").write_text("100000")
    monkeypatch.setattr(cpu_module, "_QUOTA_FILES", (str(tmp_path / "none"),))
    monkeypatch.setattr(cpu_module, "_QUOTA_FILES_V1", (str(tmp_path / "quota"), str(tmp_path / "period")))
    assert cpu_module._quota() == 2


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_the_dtype_on_a_cpu_follows_from_the_processor_and_never_changes(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert {choose_policy("cpu").dtype for _ in range(20)} == {dtype}
    assert choose_policy("cpu", "float32").dtype == torch.float32
    assert choose_policy("cpu", "bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("tpu", "auto", "device is 'tpu'; it must be auto, cpu, cuda, cuda:N or mps"),
        ("cuda:x", "auto", "device is 'cuda:x'"),
        ("cpu:1", "auto", "device is 'cpu:1'"),
        ("cpu", "int8", "dtype is 'int8'"),
        ("cpu", "float16", "dtype is 'float16', which CPUs compute slowly"),
    ],
)
def test_a_device_or_dtype_that_cannot_be_used_is_an_error_that_says_what_can(device, dtype, message):
    with pytest.raises(ConfigError) as caught:
        choose_policy(device, dtype)
    assert message in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_error_and_auto_takes_the_cpu():
    with pytest.raises(ConfigError, match="torch finds 0 NVIDIA GPUs"):
        choose_device("cuda")
    assert choose_device("auto").type in ("cpu", "mps")


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_is_preferred_and_computes_in_half_precision(monkeypatch, has_bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = SimpleNamespace(major=8 if has_bfloat16 else 7)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    policy = choose_policy()
    assert (policy.device.type, policy.dtype, policy.decoder_dtype(1)) == ("cuda", dtype, dtype)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert not choose_policy("cuda", "float32").allow_tf32, "float32 by option is exact"
    with pytest.raises(ConfigError, match="torch finds 2"):
        choose_device("cuda:2")


def test_only_large_decoders_compute_in_bfloat16_on_a_cpu():
    policy = DevicePolicy(dtype=torch.bfloat16)
    assert policy.decoder_dtype(device_module._LARGE_DECODER - 1) == torch.float32
    assert policy.decoder_dtype(device_module._LARGE_DECODER) == torch.bfloat16
    assert DevicePolicy().decoder_dtype(10**9) == torch.float32


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_missing_memory_are_recognized(error, expected):
    assert is_out_of_memory(error) == expected


def test_a_packed_decoder_equals_a_plain_one(tiny_network):
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


def run_python(code: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("entry", ["model", "corpus", "evaluation", "benchmarks", "report", "service.app", "training", "train"])
def test_openmp_threads_are_set_to_sleep_before_torch_is_loaded(entry):
    """OpenMP reads OMP_WAIT_POLICY when torch is loaded; later it has no effect."""
    run_python(
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            os._exit(0 if os.environ.get('OMP_WAIT_POLICY') == 'PASSIVE' else 3)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {entry}\n"
        "os._exit(4)  # torch was not imported at all\n"
    )


def test_torchvision_imports_and_operators_are_declared_only_if_it_would_not_load():
    run_python(
        "import model, torchvision, timm; from torchvision.transforms import v2; v2.Resize(4)\n"
        "import model._compat as compat\n"
        "loads = compat._extension_loads()\n"
        "assert bool(compat._libraries) == (not loads), (compat._libraries, loads)\n"
        "assert compat.declare_missing_operators() == (not loads)\n"
    )


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU(), nn.SiLU()])
def test_an_activation_is_computed_inside_the_product_before_it(activation):
    perceptron = nn.Sequential(nn.Linear(64, 96), activation, nn.Linear(96, 64)).bfloat16().requires_grad_(False)
    timms = Mlp(64, 96, act_layer=lambda: activation).bfloat16().requires_grad_(False)
    values = torch.randn(5, 64).bfloat16()
    for module, act in ((perceptron, "1"), (timms, "act")):
        child = activation_child(module)
        assert (child is None) == isinstance(activation, nn.SiLU), "a product has no SiLU"
        expected = module.float()(values.float())
        module.bfloat16()
        if can_pack():
            pack_linears(module, activations=True)
            assert isinstance(module.get_submodule(act), nn.SiLU if child is None else nn.Identity)
        assert (module(values).float() - expected).abs().max() < 0.05 * expected.abs().max()
