"""The properties of maps, scoring pass and checkpoints (docs/architecture.md), in float64 on a tiny network."""

from __future__ import annotations

import itertools

import pytest
import torch
from fastapi.testclient import TestClient

from model import (
    MAP_METHODS,
    CaptionNetwork,
    GenerationOptions,
    ImageFeatures,
    MapConfig,
    PatchGrid,
    ScoredRows,
    load_checkpoint,
    merge_heads,
    prepare,
    save_checkpoint,
    scoring_pass,
)
from model.generation import Generation
from model.maps.attention import AttentionMaps
from service import Settings, create_app
from tests.helpers import hypotheses_of, start
from tests.networks import redraw, tiny_config
from tests.test_properties import EXACT

ATTENTION = MAP_METHODS["attention"]


def test_permuting_the_patches_permutes_the_maps_and_nothing_else(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    order = torch.randperm(features.grid.num_patches, generator=torch.Generator().manual_seed(4))
    moved = torch.cat(
        [features.tokens[:, : features.num_prefix_tokens], features.tokens[:, features.num_prefix_tokens :][:, order]], dim=1
    )
    captions = [(5, 6, 7, 8), (9, 10, 2), (11,)]

    before = scoring_pass(tiny_network, features, (0, 1, 2), captions, method=ATTENTION, reliance=True)
    permuted = ImageFeatures(moved, features.grid, features.num_prefix_tokens)
    after = scoring_pass(tiny_network, permuted, (0, 1, 2), captions, method=ATTENTION, reliance=True)

    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one.token_maps[:, order], two.token_maps, **EXACT)
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-11)
        assert one.unconditional_log_probs == pytest.approx(two.unconditional_log_probs, abs=1e-11)


@pytest.mark.parametrize(("class_token", "num_register_tokens"), [(False, 0), (True, 0), (True, 4)])
def test_attention_on_one_image_token_gives_a_map_of_its_patch(tokenizer, class_token, num_register_tokens):
    config = tiny_config(tokenizer.size, class_token=class_token, num_register_tokens=num_register_tokens)
    network = CaptionNetwork(config).double().eval()
    features = network.encode(torch.zeros(1, 3, 24, 32, dtype=torch.float64))
    prefix, grid = class_token + num_register_tokens, PatchGrid(3, 4)

    assert (features.num_prefix_tokens, features.grid) == (prefix, grid)
    for row, column in itertools.product(range(3), range(4)):
        weights = torch.zeros(1, 2, 1, prefix + grid.num_patches + 1, dtype=torch.float64)
        weights[..., prefix + row * grid.columns + column] = 1
        scored = ScoredRows(
            weights.new_zeros(1, 1, 5), weights.new_zeros(1, 1, dtype=torch.long), (weights, weights),
            network.start(features), features.grid, features.num_prefix_tokens, MapConfig(),
        )  # fmt: skip
        rows = AttentionMaps().token_maps(scored)
        assert rows.shape == (1, 1, grid.num_patches)
        assert divmod(int(rows[0, 0].argmax()), grid.columns) == (row, column)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_merged_heads_keep_the_share_of_attention_on_the_image(mean):
    rows = torch.rand(5, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 20
    merged = merge_heads(rows, MapConfig(head_mean=mean))
    torch.testing.assert_close(merged.sum(-1), rows.mean(0).sum(-1), **EXACT)
    torch.testing.assert_close(merge_heads(rows[:1], MapConfig(head_mean=mean)), rows[0], **EXACT)
    assert (merged >= 0).all()


def test_a_geometric_mean_is_highest_where_all_heads_attend():
    one, two = torch.full((1, 12), 0.01), torch.full((1, 12), 0.01)
    one[0, 3], two[0, 5], one[0, 7], two[0, 7] = 0.5, 0.5, 0.3, 0.3
    rows = torch.stack([one, two])
    assert merge_heads(rows, MapConfig(head_mean="geometric"))[0].argmax() == 7
    assert merge_heads(torch.stack([one, one, two]), MapConfig())[0].argmax() == 3


def test_a_patch_of_pixels_changes_only_its_own_image_token(tokenizer):
    config = tiny_config(tokenizer.size, num_layers=0, num_register_tokens=2)
    network = CaptionNetwork(config).double().eval()
    blank = torch.zeros(1, 3, 24, 32, dtype=torch.float64)

    for row, column in itertools.product(range(3), range(4)):
        marked = blank.clone()
        marked[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        changed = (network.encode(marked).tokens - network.encode(blank).tokens).abs().sum(-1)[0]
        assert changed.nonzero().flatten().tolist() == [3 + row * 4 + column]


def test_a_loaded_checkpoint_equals_the_saved_one(tiny_network, tokenizer, tmp_path):
    for shard_bytes in (None, 9_000):
        folder = tmp_path / f"shards-{shard_bytes}"
        weights = CaptionNetwork(tiny_network.config).state_dict()
        save_checkpoint(folder, tiny_network.config, weights, tokenizer, "# card", shard_bytes=shard_bytes)
        loaded = load_checkpoint(folder)

        assert loaded.config == tiny_network.config
        assert loaded.card == "# card"
        assert loaded.tokenizer.to_json() == tokenizer.to_json()
        assert loaded.network.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in loaded.network.state_dict().items())


def test_reliance_is_zero_without_cross_attention(tokenizer, pixels):
    network = CaptionNetwork(tiny_config(tokenizer.size)).double().eval()
    redraw(network, 7)
    with torch.no_grad():
        for layer in network.decoder.layers:
            layer.cross_attention.out.weight.zero_()
    scored = scoring_pass(network, network.encode(pixels), (0, 1, 2), [(5, 6, 2)] * 3, method=None, reliance=True)

    for caption in scored:
        assert caption.log_probs == pytest.approx(caption.unconditional_log_probs, abs=1e-12)


def test_reliance_is_not_zero_with_cross_attention(tiny_network, pixels):
    scored = scoring_pass(tiny_network, tiny_network.encode(pixels), (0, 1, 2), [(5, 6, 2)] * 3, method=None, reliance=True)

    assert all(
        abs(a - b) > 1e-3 for caption in scored for a, b in zip(caption.log_probs, caption.unconditional_log_probs, strict=True)
    )


def test_empty_captions_are_scored_with_others(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    alone = scoring_pass(tiny_network, features, (0,), [()], method=ATTENTION, reliance=True)
    mixed = scoring_pass(tiny_network, features, (0, 1), [(), (5, 6)], method=ATTENTION, reliance=True)
    assert alone[0].log_probs == mixed[0].log_probs == ()
    assert len(mixed[1].log_probs) == 2


def test_a_key_that_is_running_cannot_be_added_again(tiny_network, tokenizer, pixels):
    generation = Generation(tiny_network, tokenizer)
    start(generation, tiny_network, tokenizer, tiny_network.encode(pixels), [0, 1, 2], [GenerationOptions()] * 3)
    with pytest.raises(ValueError, match="running already"):
        start(generation, tiny_network, tokenizer, tiny_network.encode(pixels[:1]), [1], [GenerationOptions()])


def test_the_scoring_pass_gives_the_log_probabilities_of_the_search(tiny_network, tokenizer, pixels):
    features = tiny_network.encode(pixels)
    options = GenerationOptions(num_beams=3, num_return_sequences=3, max_new_tokens=12)
    hypotheses = hypotheses_of(tiny_network, tokenizer, features, [options] * 3)
    end = tiny_network.config.decoder.eos_token_id
    rows = [(image, hypothesis) for image in range(3) for hypothesis in hypotheses[image]]
    sequences = [(*h.tokens, end) if h.is_finished else h.tokens for _, h in rows]

    scored = scoring_pass(tiny_network, features, tuple(i for i, _ in rows), sequences, method=None, reliance=False)

    for (_, hypothesis), caption in zip(rows, scored, strict=True):
        assert sum(caption.log_probs) == pytest.approx(hypothesis.log_probability, abs=1e-4)  # the search is float32


def test_the_service_gives_the_figures_of_the_captioner(tiny_captioner, photo):
    data = photo(seed=9)
    (expected,) = tiny_captioner.caption([prepare(data, tiny_captioner.image_config)])
    with TestClient(create_app({"tiny": tiny_captioner}, Settings())) as client:
        response = client.post("/v1/captions", content=data).json()

    caption, other_caption = response["captions"][0], expected.captions[0]
    assert caption["text"] == other_caption.text
    assert caption["log_probability"] == pytest.approx(other_caption.log_probability, abs=1e-6)
    for word, other in zip(caption["words"], other_caption.words, strict=True):
        assert (word["text"], word["start"], word["end"]) == (other.text, other.start, other.end)
        assert word["log_probability"] == pytest.approx(other.log_probability, abs=1e-6)
        assert word["image_reliance"] == pytest.approx(other.image_reliance, abs=1e-6)
        assert word["map"]["values"] == pytest.approx(other.map.values.tolist(), abs=1e-6)
        assert word["box"] == list(other.box)
