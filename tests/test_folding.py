"""Batch norms merged into convolutions: the output stays, the norms go."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from model import CaptionNetwork, choose_policy, prepare_network
from model.folding import fold_batch_norms
from tests.networks import tiny_config


def batch_norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def with_statistics(module, seed=0):
    """Give batch norms statistics and weights that a mistake would show in."""
    generator = torch.Generator().manual_seed(seed)
    for norm in batch_norms(module):
        for value, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5), (norm.weight, 0.7), (norm.bias, -0.3)):
            value.data.copy_(low + torch.rand(value.shape, generator=generator))
    return module.double().eval()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_050"])
def test_the_maps_stay_and_the_norms_go(name):
    torch.manual_seed(0)
    backbone = with_statistics(timm.create_model(name, features_only=True, out_indices=(2, 3)))
    folded = copy.deepcopy(backbone)
    fold_batch_norms(folded)
    assert batch_norms(backbone)
    assert not batch_norms(folded)
    pixels = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for expected, actual in zip(backbone(pixels), folded(pixels), strict=True):
            assert expected.std() > 0.01
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_other_backbones_stay_as_they_are():
    backbone = with_statistics(timm.create_model("resnet10t", features_only=True, out_indices=(1,)))
    count = len(batch_norms(backbone))
    fold_batch_norms(backbone)
    assert len(batch_norms(backbone)) == count > 0


def test_a_network_is_folded_for_inference_and_the_original_is_not(tokenizer):
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size, stem="tf_efficientnet_lite0", stem_strides=(8,)))
    with_statistics(network).float()
    prepared = prepare_network(network, choose_policy("cpu", "float32"))
    assert batch_norms(network)
    assert not batch_norms(prepared)
    pixels = torch.randn(1, 3, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(prepared.encode(pixels).tokens, network.encode(pixels).tokens, atol=1e-4, rtol=1e-4)
