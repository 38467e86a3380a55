"""The image encoder: plain patches and hybrids around timm's VisionTransformer."""

from __future__ import annotations

import math

import pytest
import torch

from model import CaptionNetwork, ConfigError, EncoderConfig, ImageConfig, PatchGrid
from model.encoder import PatchEncoder, grid_positions
from tests.networks import tiny_config

SMALL = ImageConfig(height=64, width=96)


@pytest.mark.parametrize(
    ("options", "grid", "prefix"),
    [
        ({"patch_size": 16}, PatchGrid(4, 6), 1),
        ({"patch_size": 32, "class_token": False}, PatchGrid(2, 3), 0),
        ({"patch_size": 16, "num_register_tokens": 4}, PatchGrid(4, 6), 5),
        ({"stem": "resnet10t", "stem_strides": (16,)}, PatchGrid(4, 6), 1),
        ({"stem": "resnet10t", "stem_strides": (8, 16, 32)}, PatchGrid(8, 12), 1),
        ({"stem": "tf_efficientnet_lite0", "stem_strides": (32,)}, PatchGrid(2, 3), 1),
    ],
)
def test_an_encoder_gives_prefix_tokens_and_patches(options, grid, prefix):
    encoder = PatchEncoder(EncoderConfig(hidden_size=24, num_layers=1, num_heads=2, **options), SMALL).eval()
    features = encoder(torch.zeros(2, 3, 64, 96))
    assert (features.grid, features.num_prefix_tokens) == (grid, prefix)
    assert features.tokens.shape == (2, prefix + grid.num_patches, 24)


def test_a_plain_encoder_equals_timms_forward_pass(tiny_network, pixels):
    vit = tiny_network.encoder.vit
    torch.testing.assert_close(tiny_network.encode(pixels).tokens, vit.forward_features(pixels), atol=1e-12, rtol=0)


def test_a_hybrid_encoder_equals_timms_forward_pass():
    config = EncoderConfig(
        hidden_size=24, num_layers=1, num_heads=2, stem="resnet10t", stem_strides=(16, 32), num_register_tokens=1
    )
    encoder = PatchEncoder(config, SMALL).double().eval()
    pixels = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    torch.testing.assert_close(encoder(pixels).tokens, encoder.vit.forward_features(pixels), atol=1e-12, rtol=0)


def test_finishing_the_stems_output_equals_encoding_the_pixels():
    config = EncoderConfig(hidden_size=24, num_layers=1, num_heads=2, stem="resnet10t", stem_strides=(16, 32))
    encoder = PatchEncoder(config, SMALL).eval()
    pixels = torch.rand(2, 3, 64, 96)
    maps = encoder.stem(pixels)
    assert [tuple(value.shape[-2:]) for value in maps] == [(4, 6), (2, 3)]
    torch.testing.assert_close(encoder.finish(maps).tokens, encoder(pixels).tokens)


def test_self_attention_rows_sum_to_one(tiny_network, pixels):
    (weights,) = tiny_network.encoder.self_attention(pixels)
    assert weights.shape == (3, 2, 14, 14)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), atol=1e-12, rtol=0)


def test_training_and_evaluation_agree_without_dropout(tokenizer, pixels):
    network = CaptionNetwork(tiny_config(tokenizer.size)).double()
    tokens = torch.randint(3, tokenizer.size, (3, 5))
    results = []
    for mode in (True, False):  # explicit attention, then the fused kernel
        network.train(mode)
        results.append(network.decode(tokens, network.start(network.encode(pixels)))[0])
    torch.testing.assert_close(results[0], results[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stem": "no_such_net"}, "no_such_net"), ({"stem": "resnet10t", "stem_strides": (7,)}, r"strides \[7\]")],
)
def test_an_unknown_stem_or_stride_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        PatchEncoder(EncoderConfig(hidden_size=24, num_layers=0, num_heads=2, **options), ImageConfig(height=56, width=56))


def test_the_initial_positions_of_any_two_patches_differ():
    positions = grid_positions(PatchGrid(5, 7), 24)
    assert positions.shape == (35, 24)
    assert torch.pdist(positions).min() > 0.1
    assert positions.square().mean() == pytest.approx(0.5, abs=0.1)


def test_the_null_key_starts_with_its_share_of_the_attention(tokenizer):
    torch.manual_seed(0)
    network = CaptionNetwork(tiny_config(tokenizer.size))
    features = network.encode(torch.rand(2, 3, 24, 32))
    _, weights, _ = network.decode(torch.full((2, 3), 7), network.start(features), weights=True)
    for layer in weights:
        expected = math.exp(5) / (math.exp(5) + features.tokens.size(1))
        assert layer[..., -1].mean().item() == pytest.approx(expected, abs=0.05)
