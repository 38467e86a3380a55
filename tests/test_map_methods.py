"""Properties of every forward-only map method, and the formula of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import MAP_METHODS, ConfigError, scoring_pass
from model.maps.occlusion import falls
from model.maps.variants import MeanMaps
from tests.test_gradient_maps import scored_rows

FORWARD = [name for name, method in MAP_METHODS.items() if not method.uses_gradients]
CAPTIONS = torch.tensor([[5, 9, 17, 2], [30, 6, 2, 2]])


def maps_of(name, network, pixels, captions, image_of):
    features = network.encode(pixels)
    scored = scoring_pass(network, features, image_of, captions, method=MAP_METHODS[name], reliance=False)
    return [caption.token_maps for caption in scored]


@pytest.mark.parametrize("name", FORWARD)
def test_a_map_uses_nothing_later_than_its_token(name, tiny_network, pixels):
    (short,) = maps_of(name, tiny_network, pixels[:1], [(5, 9)], [0])
    (long,) = maps_of(name, tiny_network, pixels[:1], [(5, 9, 17, 30)], [0])
    torch.testing.assert_close(long[:2], short, atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", FORWARD)
def test_captions_of_several_images_have_the_maps_of_each_alone(name, tiny_network, pixels):
    captions, image_of = [(5, 6, 7, 8), (9, 10, 2), (11,)], [0, 2, 2]
    together = maps_of(name, tiny_network, pixels, captions, image_of)
    for own, caption, image in zip(together, captions, image_of, strict=True):
        (alone,) = maps_of(name, tiny_network, pixels[image : image + 1], [caption], [0])
        torch.testing.assert_close(own, alone, atol=1e-11, rtol=0)
        assert own.min() >= 0


@pytest.mark.parametrize("name", [name for name in FORWARD if name != "occlusion"])  # its windows are of neighbors
def test_exchanged_image_tokens_exchange_the_map_and_nothing_else(name, tiny_network, pixels):
    rows = scored_rows(tiny_network, pixels[:1], CAPTIONS)
    before = MAP_METHODS[name].token_maps(rows)
    order = torch.randperm(rows.grid.num_patches, generator=torch.Generator().manual_seed(0))
    first, last = rows.patches.start, rows.patches.stop
    keys = torch.cat([torch.arange(first), first + order, torch.arange(last, rows.state.cross_key[0].size(2))])
    state = replace(rows.state, cross_value=tuple(value[:, :, keys] for value in rows.state.cross_value))
    after = MAP_METHODS[name].token_maps(replace(rows, weights=tuple(layer[..., keys] for layer in rows.weights), state=state))
    torch.testing.assert_close(after, before[..., order], atol=1e-12, rtol=0)


def test_the_baseline_is_the_mean_of_all_layers_and_heads(tiny_network, pixels):
    rows = scored_rows(tiny_network, pixels[:1], CAPTIONS)
    every_head = torch.cat(rows.weights, dim=1)[..., rows.patches]
    torch.testing.assert_close(MeanMaps().token_maps(rows), every_head.mean(dim=1))


def test_norms_weight_the_attention_of_each_head(tiny_network, pixels):
    rows = scored_rows(tiny_network, pixels[:1], CAPTIONS)
    values = MAP_METHODS["norm"].token_maps(rows)
    expected = torch.zeros_like(values)
    for layer, value in zip(rows.weights, rows.state.cross_value, strict=True):
        for row, image in enumerate(rows.state.image_of):
            for head in range(layer.size(1)):
                for patch in range(rows.grid.num_patches):
                    key = rows.num_prefix_tokens + patch
                    expected[row, :, patch] += layer[row, head, :, key] * value[image, head, key].norm() / len(rows.weights)
    torch.testing.assert_close(values, expected)


def test_a_word_that_looks_where_the_earlier_ones_did_has_no_residual(tiny_network, pixels):
    rows = scored_rows(tiny_network, pixels[:1], CAPTIONS)
    same = tuple(layer[:, :, :1].expand_as(layer) for layer in rows.weights)
    residual = MAP_METHODS["residual"].token_maps(replace(rows, weights=same))
    assert residual[:, 1:].abs().max() < 1e-12
    assert residual[:, 0].max() > 0
    other = MAP_METHODS["residual"].token_maps(rows)[:, 1:]
    attention = MAP_METHODS["attention"].token_maps(rows)
    before = attention.cumsum(1) / torch.arange(1, 5)[None, :, None]
    unclamped = attention[:, 1:] - other
    assert (unclamped >= -1e-12).all(), "nothing is added"
    assert before.shape == attention.shape


def test_standardized_maps_are_high_where_earlier_words_did_not_look(tiny_network, pixels):
    rows = scored_rows(tiny_network, pixels[:1], CAPTIONS)
    first = rows.num_prefix_tokens
    layers = []
    for layer in rows.weights:
        changed = torch.zeros_like(layer)
        changed[:, :, :3, first + 1] = 1.0  # three words look at patch 1
        changed[:, :, 3, first + 1] = 0.6
        changed[:, :, 3, first + 4] = 0.4  # the fourth also at patch 4, less
        layers.append(changed)
    last = MAP_METHODS["standardized"].token_maps(replace(rows, weights=tuple(layers)))[0, 3]
    assert int(last.argmax()) == 4


def test_occlusion_is_the_fall_without_the_keys(tiny_network, pixels):
    features = tiny_network.encode(pixels[:1])
    caption = (5, 9, 17)
    scored = scoring_pass(tiny_network, features, [0], [caption], method=MAP_METHODS["occlusion"], reliance=False)[0]
    grid, first = features.grid, features.num_prefix_tokens
    state = tiny_network.start(features)
    inputs, targets = torch.tensor([[tiny_network.config.decoder.bos_token_id, 5, 9]]), torch.tensor(caption)
    whole = tiny_network.decode(inputs, state)[0][0].log_softmax(-1)[torch.arange(3), targets]
    for patch in (0, grid.columns + 1):
        row, column = divmod(patch, grid.columns)
        window = {
            first + r * grid.columns + c
            for r in range(row - 1, row + 2)
            for c in range(column - 1, column + 2)
            if 0 <= r < grid.rows and 0 <= c < grid.columns
        }
        kept = [key for key in range(state.cross_key[0].size(2)) if key not in window]
        less = replace(
            state,
            cross_key=tuple(key[:, :, kept] for key in state.cross_key),
            cross_value=tuple(value[:, :, kept] for value in state.cross_value),
        )
        without = tiny_network.decode(inputs, less)[0][0].log_softmax(-1)[torch.arange(3), targets]
        torch.testing.assert_close(scored.token_maps[:, patch], (whole - without).clamp_min(0), atol=1e-11, rtol=0)


def test_occlusion_needs_a_runtime_that_decodes_again(tiny_network, pixels):
    with pytest.raises(ConfigError, match="decode again"):
        falls(scored_rows(tiny_network, pixels[:1], CAPTIONS))
