"""The properties of docs/architecture.md, in float64 on a tiny network. Tolerance: rounding of sums of a few hundred terms."""

from __future__ import annotations

import itertools

import pytest
import torch

from model import (
    CaptionNetwork,
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    ModelConfig,
)
from model import generation as generation_module
from model.generation import Generation
from model.search import BeamSearch
from tests.helpers import finish, hypotheses_of, start
from tests.networks import redraw

EXACT = {"atol": 1e-11, "rtol": 0}
OPTIONS = {
    "greedy": GenerationOptions(strategy="greedy", max_new_tokens=12),
    "beam": GenerationOptions(num_beams=4, num_return_sequences=4, max_new_tokens=12),
    "two beams": GenerationOptions(num_beams=2, length_penalty=0.0, max_new_tokens=9, no_repeat_ngram_size=2),
    "sample": GenerationOptions(strategy="sample", num_return_sequences=2, seed=5, max_new_tokens=10, top_p=0.9),
    "prompted": GenerationOptions(num_beams=3, prompt="a dog", max_new_tokens=8, repetition_penalty=1.3),
    "word limits": GenerationOptions(num_beams=3, min_words=2, max_words=3, max_new_tokens=14),
}


def tokens_for(network, rows: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, network.config.decoder.vocab_size, (rows, length), generator=generator)


def test_step_by_step_decoding_equals_teacher_forcing(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 9)
    features = tiny_network.encode(pixels)
    together, weights, _ = tiny_network.decode(tokens, tiny_network.start(features), weights=True)

    state, steps, attention = tiny_network.start(features), [], []
    for t in range(tokens.size(1)):
        logits, step_weights, state = tiny_network.decode(tokens[:, t : t + 1], state, weights=True)
        steps.append(logits)
        attention.append(step_weights[-1])

    torch.testing.assert_close(torch.cat(steps, dim=1), together, **EXACT)
    torch.testing.assert_close(torch.cat(attention, dim=2), weights[-1], **EXACT)


def test_the_fused_kernel_equals_the_explicit_formula(tiny_network, pixels):
    tokens = tokens_for(tiny_network, 3, 7)
    state = tiny_network.start(tiny_network.encode(pixels))

    fused, none, _ = tiny_network.decode(tokens, state)
    explicit, weights, _ = tiny_network.decode(tokens, state, weights=True)

    assert none == ()
    assert len(weights) == tiny_network.config.decoder.num_layers
    torch.testing.assert_close(fused, explicit, **EXACT)


def test_cross_attention_weights_sum_to_one_over_prefix_patches_and_null_key(tiny_network, pixels):
    features = tiny_network.encode(pixels)
    _, weights, _ = tiny_network.decode(tokens_for(tiny_network, 3, 5), tiny_network.start(features), weights=True)

    for layer in weights:
        assert layer.size(-1) == features.num_prefix_tokens + features.grid.num_patches + 1
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


def test_rows_that_join_or_leave_do_not_change_the_others(tiny_network, pixels):
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
    assert after.select([2]).num_columns == 3, "unused columns and images leave with the longer rows"
    assert after.select([2]).num_images == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_a_caption_is_the_same_alone_in_a_batch_and_with_rows_that_join_later(tiny_network, tokenizer, pixels, name):
    features = tiny_network.encode(pixels)
    others = [option for other, option in OPTIONS.items() if other != name]

    alone = hypotheses_of(tiny_network, tokenizer, features.select([1]), [OPTIONS[name]])[0]
    mixed = hypotheses_of(tiny_network, tokenizer, features, [others[0], OPTIONS[name], others[1]])[1]
    generation = Generation(tiny_network, tokenizer)
    start(generation, tiny_network, tokenizer, features.select([0]), ["early"], [others[2]])
    generation.step()
    start(generation, tiny_network, tokenizer, features.select([1]), ["tested"], [OPTIONS[name]])
    generation.step()
    start(generation, tiny_network, tokenizer, features.select([2, 0]), ["late", "removed"], [others[3], others[4]])
    finished = generation.step()
    if "removed" in generation.keys:
        generation.remove("removed")
    finished |= finish(generation)

    for other in (mixed, finished["tested"]):
        assert [hypothesis.tokens for hypothesis in other] == [hypothesis.tokens for hypothesis in alone]
        for one, two in zip(alone, other, strict=True):
            assert one.log_probability == pytest.approx(two.log_probability, abs=1e-5)  # scores are float32
    assert generation.num_rows == 0


def test_beam_search_with_one_beam_is_greedy_search(tiny_network, tokenizer, pixels, monkeypatch):
    features = tiny_network.encode(pixels)
    greedy = hypotheses_of(tiny_network, tokenizer, features, [GenerationOptions(strategy="greedy")] * 3)
    beam = hypotheses_of(tiny_network, tokenizer, features, [GenerationOptions(num_beams=1)] * 3)
    assert beam == greedy

    # make_search replaces one beam by greedy search; here the beam search itself runs with one beam and no length penalty.
    monkeypatch.setattr(generation_module, "make_search", BeamSearch)
    one_beam = hypotheses_of(tiny_network, tokenizer, features, [GenerationOptions(num_beams=1, length_penalty=0.0)] * 3)
    assert [one_beam[image][0].tokens for image in range(3)] == [greedy[image][0].tokens for image in range(3)]
    assert any(greedy[image][0].is_finished for image in range(3)), "some captions end by the end token"


def test_greedy_search_chooses_the_most_likely_tokens_of_teacher_forcing(tiny_network, tokenizer, pixels):
    features = tiny_network.encode(pixels)
    hypotheses = hypotheses_of(tiny_network, tokenizer, features, [GenerationOptions(strategy="greedy", max_new_tokens=15)] * 3)

    for image in range(3):
        (hypothesis,) = hypotheses[image]
        decoder = tiny_network.config.decoder
        inputs = torch.tensor([[decoder.bos_token_id, *hypothesis.tokens]])
        logits, _, _ = tiny_network.decode(inputs, tiny_network.start(features.select([image])))
        logits[..., [decoder.pad_token_id, decoder.bos_token_id]] = float("-inf")
        chosen = logits[0].argmax(-1).tolist()
        ending = [decoder.eos_token_id] if hypothesis.is_finished else []
        assert chosen[: len(hypothesis.tokens) + len(ending)] == [*hypothesis.tokens, *ending]


class WordlessTokenizer:
    """A tokenizer that counts no words, so that only the limit of tokens applies."""

    max_words_per_token = 1

    def encode(self, text: str) -> list[int]:
        return []

    def count_words(self, ids: object) -> int:
        return 0


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_beam_search_with_enough_beams_equals_exhaustive_search(penalty, seed):
    # Two ordinary tokens and three steps: at most 4 live rows, and 8 beams keep all of them.
    config = ModelConfig(
        image=ImageConfig(height=16, width=16),
        encoder=EncoderConfig(hidden_size=8, num_layers=0, num_heads=2, patch_size=8),
        decoder=DecoderConfig(
            vocab_size=5, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, max_positions=8, encoder_hidden_size=8
        ),
    )
    network = CaptionNetwork(config).double().eval()
    redraw(network, 10 + seed, scale=0.8)
    features = network.encode(torch.ones(1, 3, 16, 16, dtype=torch.float64))
    options = GenerationOptions(num_beams=8, max_new_tokens=3, length_penalty=penalty)

    with torch.no_grad():
        (best,) = hypotheses_of(network, WordlessTokenizer(), features, [options])[0]

        scores = {}
        for body in itertools.chain.from_iterable(itertools.product((3, 4), repeat=n) for n in range(4)):
            ended = (*body, 2) if len(body) < 3 else body
            logits, _, _ = network.decode(torch.tensor([[1, *ended[:-1]]]), network.start(features))
            log_probs = logits[0].log_softmax(-1)
            total = sum(log_probs[at, token].item() for at, token in enumerate(ended))
            scores[body] = total / len(ended) ** penalty

    assert best.tokens == max(scores, key=scores.__getitem__)
