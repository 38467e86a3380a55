"""Gradient maps: exact to first order, and served like any other method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import MAP_METHODS, Captioner, CaptionNetwork, ConfigError, DevicePolicy, GenerationOptions, ScoredRows, scoring_pass
from model.maps.gradient import contributions
from tests.helpers import WatchedRuntime


def scored_rows(
    network: CaptionNetwork, pixels: torch.Tensor, captions: torch.Tensor, scale: torch.Tensor | None = None
) -> ScoredRows:
    """Return a scoring pass with differentiable cross values, each image token's multiplied by `scale` (S,)."""
    features = network.encode(pixels).select([0] * captions.size(0))
    state = network.start(features)
    values = tuple(value.detach() for value in state.cross_value)
    if scale is not None:
        values = tuple(value * scale[:, None] for value in values)
    state = replace(state, cross_value=tuple(value.requires_grad_() for value in values))
    start = torch.full((captions.size(0), 1), network.config.decoder.bos_token_id)
    logits, weights, _ = network.decode(torch.cat([start, captions[:, :-1]], dim=1), state, weights=True)
    return ScoredRows(logits, captions, weights, state, features.grid, features.num_prefix_tokens, network.config.maps)


def test_a_contribution_is_the_first_order_fall_of_the_log_probability_without_the_patch(tiny_network, pixels):
    captions = torch.tensor([[5, 9, 17, 2], [30, 6, 2, 2]])
    rows = scored_rows(tiny_network, pixels[:1], captions)
    contribution = contributions(rows)  # (R, T, P)
    num_tokens = rows.state.cross_value[0].size(2)
    step = 1e-6
    for patch in range(rows.grid.num_patches):
        scale = torch.ones(num_tokens, dtype=torch.float64)
        falls = []
        for sign in (1, -1):
            scale[rows.num_prefix_tokens + patch] = 1 - sign * step
            other = scored_rows(tiny_network, pixels[:1], captions, scale)
            falls.append(other.logits.log_softmax(-1).gather(2, captions[..., None]).squeeze(2))
        numeric = (falls[1] - falls[0]) / (2 * step)
        torch.testing.assert_close(contribution[:, :, patch], numeric, atol=1e-7, rtol=1e-5)


def test_a_gradient_map_uses_nothing_later_than_its_token(tiny_network, pixels):
    features = tiny_network.encode(pixels[:1])
    settings = {"method": MAP_METHODS["gradient"], "reliance": False}
    short = scoring_pass(tiny_network, features, [0], [(5, 9)], **settings)[0]
    long = scoring_pass(tiny_network, features, [0], [(5, 9, 17, 30)], **settings)[0]
    torch.testing.assert_close(long.token_maps[:2], short.token_maps, atol=1e-11, rtol=0)


def test_a_batch_of_captions_has_the_gradient_maps_of_each_alone(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    captions = [(5, 6, 7, 8), (9, 10, 2), (), (11,)]
    image_of = [0, 2, 1, 2]
    settings = {"method": MAP_METHODS["gradient"], "reliance": True}
    together = scoring_pass(tiny_network, features, image_of, captions, **settings)
    for row, (image, caption) in enumerate(zip(image_of, captions, strict=True)):
        (alone,) = scoring_pass(tiny_network, features.select([image]), [0], [caption], **settings)
        torch.testing.assert_close(together[row].token_maps, alone.token_maps, atol=1e-11, rtol=0)
        assert together[row].log_probs == pytest.approx(alone.log_probs, abs=1e-11)
        assert together[row].unconditional_log_probs == pytest.approx(alone.unconditional_log_probs, abs=1e-11)


@pytest.mark.parametrize("options", [GenerationOptions(), GenerationOptions(num_return_sequences=2, prompt="a dog")])
def test_captions_are_the_same_with_gradient_maps(tiny_captioner, views, options):
    attention = tiny_captioner.caption(views, options)
    gradient = tiny_captioner.caption(views, options, maps="gradient")
    for one, two in zip(attention, gradient, strict=True):
        for caption, other in zip(one.captions, two.captions, strict=True):
            assert caption.text == other.text
            assert caption.log_probability == pytest.approx(other.log_probability, abs=1e-5)
            for word in other.words:
                assert word.map.image_mass is None, "it is not a share of attention"
                assert word.map.values.sum().item() == pytest.approx(1)
                assert not word.map.values.requires_grad
    pairs = [
        (one.map.values, two.map.values)
        for before, after in zip(attention, gradient, strict=True)
        for one, two in zip(before.captions[0].words, after.captions[0].words, strict=True)
    ]
    assert any(not torch.allclose(one, two, atol=1e-3) for one, two in pairs)


def test_a_network_without_gradients_refuses_them_by_name(tiny_captioner, views):
    class WithoutGradients(WatchedRuntime):
        supports_gradients = False

    runtime = WithoutGradients(tiny_captioner.runtime)
    captioner = Captioner(runtime, tiny_captioner.tokenizer, policy=DevicePolicy())
    assert captioner.caption(views[:1])[0].captions
    runtime.encoded.clear()
    with pytest.raises(ConfigError, match="maps is 'gradient', which needs gradients"):
        captioner.caption(views[:1], maps="gradient")
    assert not runtime.encoded, "refused before an image is encoded"
    with pytest.raises(ConfigError, match="maps is 'saliency'; it must be one of none, attention, gradient"):
        captioner.caption(views[:1], maps="saliency")


def test_gradient_maps_are_served(client, image_bytes):
    body = client.post("/v1/captions", content=image_bytes, params={"maps": "gradient"}).json()
    words = body["captions"][0]["words"]
    assert words
    for word in words:
        assert word["image_mass"] is None
        assert sum(word["map"]["values"]) == pytest.approx(1, abs=1e-3)
        assert word["box"] is not None


def test_progress_is_reported_before_each_tokens_gradient(tiny_network, pixels):
    features = tiny_network.encode(pixels[:1])
    calls: list[int] = []
    settings = {"method": MAP_METHODS["gradient"], "reliance": False}
    scoring_pass(tiny_network, features, [0], [(5, 9, 17, 30)], **settings, progress=lambda: calls.append(1))
    assert len(calls) == 4

    def leave() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        scoring_pass(tiny_network, features, [0], [(5, 9)], **settings, progress=leave)
