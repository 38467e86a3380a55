"""The laws of docs/architecture.md, in float64 on a tiny network. Tolerance: rounding of sums of some hundred terms."""

from __future__ import annotations

import itertools

import pytest
import torch
from fastapi.testclient import TestClient

from model import (
    CaptionNetwork,
    DecoderConfig,
    EncoderConfig,
    Generation,
    GenerationOptions,
    ImageConfig,
    ImageFeatures,
    MapConfig,
    ModelConfig,
    PatchGrid,
    decoding,
    load_checkpoint,
    merge_heads,
    prepare,
    replay,
    save_checkpoint,
)
from model.replay import attention_rows
from model.search import BeamSearch
from service import Settings, create_app
from tests.conftest import redraw, tiny_config

EXACT = {"atol": 1e-11, "rtol": 0}
OPTIONS = {
    "greedy": GenerationOptions(strategy="greedy", max_tokens=12),
    "beam": GenerationOptions(beams=4, count=4, max_tokens=12),
    "beam of two, short": GenerationOptions(beams=2, length_penalty=0.0, max_tokens=9, no_repeat=2),
    "sample": GenerationOptions(strategy="sample", count=2, seed=5, max_tokens=10, top_p=0.9),
    "prompted": GenerationOptions(beams=3, prompt="a dog", max_tokens=8, repetition_penalty=1.3),
    "worded": GenerationOptions(beams=3, min_words=2, max_words=3, max_tokens=14),
}


def tokens_for(network, rows: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, network.config.decoder.vocabulary, (rows, length), generator=generator)


def captions_of(network, tokenizer, features, options: list[GenerationOptions]):
    generation = Generation(network, tokenizer)
    generation.add(features, list(range(len(options))), options)
    return generation.run()


def test_step_by_step_decoding_equals_teacher_forcing(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 9)
    features = tiny_network.encode(pixels)
    together, weights, _ = tiny_network.decode(tokens, tiny_network.start(features), weights=True)

    state, steps, seen = tiny_network.start(features), [], []
    for t in range(tokens.size(1)):
        logits, step_weights, state = tiny_network.decode(tokens[:, t : t + 1], state, weights=True)
        steps.append(logits)
        seen.append(step_weights[-1])

    torch.testing.assert_close(torch.cat(steps, dim=1), together, **EXACT)
    torch.testing.assert_close(torch.cat(seen, dim=2), weights[-1], **EXACT)


def test_the_fused_kernel_equals_the_written_formula(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 7)
    state = tiny_network.start(tiny_network.encode(pixels))

    fused, none, _ = tiny_network.decode(tokens, state)
    explicit, weights, _ = tiny_network.decode(tokens, state, weights=True)

    assert none == ()
    assert len(weights) == tiny_network.config.decoder.depth
    torch.testing.assert_close(fused, explicit, **EXACT)


def test_cross_attention_weights_sum_to_one_over_cells_prefix_and_null(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    _, weights, _ = tiny_network.decode(tokens_for(tiny_network, 3, 5), tiny_network.start(features), weights=True)

    for layer in weights:
        assert layer.size(-1) == features.prefix + features.grid.cells + 1
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]), **EXACT)
        assert (layer >= 0).all()


def test_a_batch_equals_its_images_one_by_one(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 6)
    together, _, _ = tiny_network.decode(tokens, tiny_network.start(tiny_network.encode(pixels)))

    for index in range(3):
        features = tiny_network.encode(pixels[index : index + 1])
        alone, _, _ = tiny_network.decode(tokens[index : index + 1], tiny_network.start(features))
        torch.testing.assert_close(alone[0], together[index], **EXACT)


def test_rows_that_share_an_image_equal_rows_with_a_copy_of_it(tiny_network, pixels):
    image_of = (0, 2, 2, 1, 2)  # irregular on purpose: groups of 1, 1 and 3
    tokens = tokens_for(tiny_network, 5, 6)
    features = tiny_network.encode(pixels)

    shared, weights, _ = tiny_network.decode(tokens, tiny_network.start(features, image_of), weights=True)
    copied, expected, _ = tiny_network.decode(tokens, tiny_network.start(features.select(list(image_of))), weights=True)

    torch.testing.assert_close(shared, copied, **EXACT)
    torch.testing.assert_close(weights[1], expected[1], **EXACT)


def test_padding_at_the_end_changes_nothing_before_it(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 6)
    padded = torch.cat([tokens, torch.zeros(3, 4, dtype=torch.long)], dim=1)
    state = tiny_network.start(tiny_network.encode(pixels))

    alone, _, _ = tiny_network.decode(tokens, state)
    with_padding, _, _ = tiny_network.decode(padded, state)

    torch.testing.assert_close(with_padding[:, :6], alone, **EXACT)


def test_rows_of_different_lengths_join_and_leave_without_a_trace(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    first, second = tokens_for(tiny_network, 2, 5, 1), tokens_for(tiny_network, 1, 2, 2)
    _, _, long = tiny_network.decode(first, tiny_network.start(features.select([0, 1])))
    _, _, short = tiny_network.decode(second, tiny_network.start(features.select([2])))
    next_token = tokens_for(tiny_network, 3, 1, 3)

    joined = long.append(short)
    logits, _, after = tiny_network.decode(next_token, joined)
    left, _, _ = tiny_network.decode(next_token[[2, 0]], after.select([2, 0]))

    alone = torch.cat([first, next_token[:2]], dim=1)
    expected, _, _ = tiny_network.decode(alone, tiny_network.start(features.select([0, 1])))
    torch.testing.assert_close(logits[:2, 0], expected[:, -1], **EXACT)
    alone = torch.cat([second, next_token[2:], next_token[2:]], dim=1)
    expected, _, _ = tiny_network.decode(alone, tiny_network.start(features.select([2])))
    torch.testing.assert_close(logits[2, 0], expected[0, 2], **EXACT)
    torch.testing.assert_close(left[0, 0], expected[0, 3], **EXACT)
    assert after.select([2]).columns == 3, "unused columns and images leave with the longer rows"
    assert after.select([2]).images == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_a_caption_is_the_same_alone_in_a_batch_and_among_rows_that_join_later(tiny_network, tokenizer, pixels, name):
    features = tiny_network.encode(pixels)
    others = [option for other, option in OPTIONS.items() if other != name]

    alone = captions_of(tiny_network, tokenizer, features.select([1]), [OPTIONS[name]])[0]
    mixed = captions_of(tiny_network, tokenizer, features, [others[0], OPTIONS[name], others[1]])[1]
    generation = Generation(tiny_network, tokenizer)
    generation.add(features.select([0]), ["early"], [others[2]])
    generation.step()
    generation.add(features.select([1]), ["mine"], [OPTIONS[name]])
    generation.step()
    generation.add(features.select([2, 0]), ["late", "gone"], [others[3], others[4]])
    finished = generation.step()
    if "gone" in generation.keys:
        generation.remove("gone")
    finished |= generation.run()

    for other in (mixed, finished["mine"]):
        assert [hypothesis.tokens for hypothesis in other] == [hypothesis.tokens for hypothesis in alone]
        for one, two in zip(alone, other, strict=True):
            assert one.log_probability == pytest.approx(two.log_probability, abs=1e-5)  # scores are float32
    assert generation.rows == 0


def test_a_beam_of_one_is_greedy(tiny_network, tokenizer, pixels, monkeypatch):
    features = tiny_network.encode(pixels)
    greedy = captions_of(tiny_network, tokenizer, features, [GenerationOptions(strategy="greedy")] * 3)
    beam = captions_of(tiny_network, tokenizer, features, [GenerationOptions(beams=1)] * 3)
    assert beam == greedy

    # Not only by definition: the beam search itself, one row wide, without length to trade for.
    monkeypatch.setattr(decoding, "search_for", BeamSearch)
    searched = captions_of(tiny_network, tokenizer, features, [GenerationOptions(beams=1, length_penalty=0.0)] * 3)
    assert [searched[image][0].tokens for image in range(3)] == [greedy[image][0].tokens for image in range(3)]
    assert any(greedy[image][0].finished for image in range(3)), "an end is chosen, not only a limit reached"


def test_greedy_takes_the_most_likely_token_of_teacher_forcing(tiny_network, tokenizer, pixels):
    features = tiny_network.encode(pixels)
    found = captions_of(tiny_network, tokenizer, features, [GenerationOptions(strategy="greedy", max_tokens=15)] * 3)

    for image in range(3):
        (hypothesis,) = found[image]
        decoder = tiny_network.config.decoder
        inputs = torch.tensor([[decoder.start_id, *hypothesis.tokens]])
        logits, _, _ = tiny_network.decode(inputs, tiny_network.start(features.select([image])))
        logits[..., [decoder.pad_id, decoder.start_id]] = float("-inf")
        chosen = logits[0].argmax(-1).tolist()
        ending = [decoder.end_id] if hypothesis.finished else []
        assert chosen[: len(hypothesis.tokens) + len(ending)] == [*hypothesis.tokens, *ending]


class _FiveTokens:
    """A tokenizer of no words: what exhaustive search needs."""

    most_words_a_token = 1

    def encode(self, text: str) -> list[int]:
        return []

    def count_words(self, ids: object) -> int:
        return 0


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_what_exhaustive_search_finds(penalty, seed):
    # Two ordinary tokens and three steps: at most 4 live rows, all of which a beam of 8 keeps.
    config = ModelConfig(
        image=ImageConfig(height=16, width=16),
        encoder=EncoderConfig(width=8, depth=0, heads=2, patch_size=8),
        decoder=DecoderConfig(vocabulary=5, width=8, depth=1, heads=2, mlp_width=8, positions=8, image_width=8),
    )
    network = CaptionNetwork(config).double().eval()
    redraw(network, 10 + seed, scale=0.8)
    features = network.encode(torch.ones(1, 3, 16, 16, dtype=torch.float64))
    options = GenerationOptions(beams=8, max_tokens=3, length_penalty=penalty)

    with torch.no_grad():
        (found,) = captions_of(network, _FiveTokens(), features, [options])[0]

        scores = {}
        for body in itertools.chain.from_iterable(itertools.product((3, 4), repeat=n) for n in range(4)):
            ended = (*body, 2) if len(body) < 3 else body
            logits, _, _ = network.decode(torch.tensor([[1, *ended[:-1]]]), network.start(features))
            log_probs = logits[0].log_softmax(-1)
            total = sum(log_probs[at, token].item() for at, token in enumerate(ended))
            scores[body] = total / len(ended) ** penalty

    assert found.tokens == max(scores, key=scores.__getitem__)


def test_permuting_the_patches_permutes_the_maps_and_nothing_else(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    order = torch.randperm(features.grid.cells, generator=torch.Generator().manual_seed(4))
    moved = torch.cat([features.tokens[:, : features.prefix], features.tokens[:, features.prefix :][:, order]], dim=1)
    captions = [(5, 6, 7, 8), (9, 10, 2), (11,)]

    before = replay(tiny_network, features, (0, 1, 2), captions, maps=True, reliance=True)
    permuted = ImageFeatures(moved, features.grid, features.prefix)
    after = replay(tiny_network, permuted, (0, 1, 2), captions, maps=True, reliance=True)

    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one.rows[:, order], two.rows, **EXACT)
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-11)
        assert one.blind_log_probs == pytest.approx(two.blind_log_probs, abs=1e-11)


@pytest.mark.parametrize(("class_token", "registers"), [(False, 0), (True, 0), (True, 4)])
def test_a_delta_at_a_cells_column_peaks_at_that_cell(tokenizer, class_token, registers):
    config = tiny_config(tokenizer.size, class_token=class_token, registers=registers)
    network = CaptionNetwork(config).double().eval()
    features = network.encode(torch.zeros(1, 3, 24, 32, dtype=torch.float64))
    prefix, grid = class_token + registers, PatchGrid(3, 4)

    assert (features.prefix, features.grid) == (prefix, grid)
    for row, column in itertools.product(range(3), range(4)):
        weights = torch.zeros(1, 2, 1, prefix + grid.cells + 1, dtype=torch.float64)
        weights[..., prefix + row * grid.columns + column] = 1
        rows = attention_rows((weights, weights), MapConfig(), features)
        assert rows.shape == (1, 1, grid.cells)
        assert divmod(int(rows[0, 0].argmax()), grid.columns) == (row, column)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_merged_heads_keep_the_share_of_attention_that_lies_on_the_picture(mean):
    rows = torch.rand(5, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 20
    merged = merge_heads(rows, MapConfig(mean=mean))
    torch.testing.assert_close(merged.sum(-1), rows.mean(0).sum(-1), **EXACT)
    torch.testing.assert_close(merge_heads(rows[:1], MapConfig(mean=mean)), rows[0], **EXACT)
    assert (merged >= 0).all()


def test_a_geometric_mean_asks_the_heads_to_agree():
    one, two = torch.full((1, 12), 0.01), torch.full((1, 12), 0.01)
    one[0, 3], two[0, 5], one[0, 7], two[0, 7] = 0.5, 0.5, 0.3, 0.3
    rows = torch.stack([one, two])
    assert merge_heads(rows, MapConfig(mean="geometric"))[0].argmax() == 7
    assert merge_heads(torch.stack([one, one, two]), MapConfig())[0].argmax() == 3


def test_an_image_token_stands_at_the_cell_of_its_pixels(tokenizer):
    config = tiny_config(tokenizer.size, depth=0, registers=2)
    network = CaptionNetwork(config).double().eval()
    blank = torch.zeros(1, 3, 24, 32, dtype=torch.float64)

    for row, column in itertools.product(range(3), range(4)):
        marked = blank.clone()
        marked[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        changed = (network.encode(marked).tokens - network.encode(blank).tokens).abs().sum(-1)[0]
        assert changed.nonzero().flatten().tolist() == [3 + row * 4 + column]


def test_a_saved_network_loads_as_it_was(tiny_network, tokenizer, tmp_path):
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


def test_without_cross_attention_nothing_relies_on_the_image(tokenizer, pixels):
    network = CaptionNetwork(tiny_config(tokenizer.size)).double().eval()
    redraw(network, 7)
    with torch.no_grad():
        for layer in network.decoder.layers:
            layer.cross_attention.out.weight.zero_()
    read = replay(network, network.encode(pixels), (0, 1, 2), [(5, 6, 2)] * 3, maps=False, reliance=True)

    for caption in read:
        assert caption.log_probs == pytest.approx(caption.blind_log_probs, abs=1e-12)


def test_with_cross_attention_something_does(tiny_network, pixels):
    read = replay(tiny_network, tiny_network.encode(pixels), (0, 1, 2), [(5, 6, 2)] * 3, maps=False, reliance=True)

    assert all(abs(a - b) > 1e-3 for caption in read for a, b in zip(caption.log_probs, caption.blind_log_probs, strict=True))


def test_empty_captions_are_replayed_beside_others(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    alone = replay(tiny_network, features, (0,), [()], maps=True, reliance=True)
    mixed = replay(tiny_network, features, (0, 1), [(), (5, 6)], maps=True, reliance=True)
    assert alone[0].log_probs == mixed[0].log_probs == ()
    assert len(mixed[1].log_probs) == 2


def test_a_key_that_is_running_cannot_be_added_again(tiny_network, tokenizer, pixels):
    generation = Generation(tiny_network, tokenizer)
    generation.add(tiny_network.encode(pixels), [0, 1, 2], [GenerationOptions()] * 3)
    with pytest.raises(ValueError, match="running already"):
        generation.add(tiny_network.encode(pixels[:1]), [1], [GenerationOptions()])


def test_the_replay_reads_the_probabilities_that_the_search_found(tiny_network, tokenizer, pixels):
    features = tiny_network.encode(pixels)
    options = GenerationOptions(beams=3, count=3, max_tokens=12)
    found = captions_of(tiny_network, tokenizer, features, [options] * 3)
    end = tiny_network.config.decoder.end_id
    rows = [(image, hypothesis) for image in range(3) for hypothesis in found[image]]
    sequences = [(*h.tokens, end) if h.finished else h.tokens for _, h in rows]

    read = replay(tiny_network, features, tuple(i for i, _ in rows), sequences, maps=False, reliance=False)

    for (_, hypothesis), caption in zip(rows, read, strict=True):
        assert sum(caption.log_probs) == pytest.approx(hypothesis.log_probability, abs=1e-4)  # the search is float32


def test_the_service_answers_what_the_captioner_answers(tiny_captioner, photo):
    data = photo(seed=9)
    (expected,) = tiny_captioner.caption([prepare(data, tiny_captioner.image_config)])
    with TestClient(create_app({"tiny": tiny_captioner}, Settings())) as client:
        answer = client.post("/v1/captions", content=data).json()

    caption, known = answer["captions"][0], expected.captions[0]
    assert caption["text"] == known.text
    assert caption["log_probability"] == pytest.approx(known.log_probability, abs=1e-6)
    for word, other in zip(caption["words"], known.words, strict=True):
        assert (word["text"], word["start"], word["end"]) == (other.text, other.start, other.end)
        assert word["log_probability"] == pytest.approx(other.log_probability, abs=1e-6)
        assert word["image_reliance"] == pytest.approx(other.image_reliance, abs=1e-6)
        assert word["map"]["values"] == pytest.approx(other.map.values.tolist(), abs=1e-6)
        assert word["box"] == list(other.box)
