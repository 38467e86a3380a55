"""Decoding as in transformers: greedy and beam search give the tokens of `generate`, for every family."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from model import GenerationOptions
from model.logits import sampling_probs
from tests.helpers import hypotheses_of
from tests.peers import FAMILIES, SIZE, build, end_competes, generated
from tests.test_pretrained import converted

NUM_TRIALS, NUM_SLOW_TRIALS = 60, 1_000  # sets of options per family
MAX_NEW_TOKENS = 20


class IdTokenizer:
    """A tokenizer whose text is the ids themselves, separated by spaces, and that counts no words."""

    max_words_per_token = 0

    def encode(self, text: str) -> list[int]:
        return [int(part) for part in text.split()]

    def count_words(self, ids: object) -> int:
        return 0


def random_options(rng: random.Random, *, directed: bool) -> dict[str, object]:
    """Sample options; directed ones exercise the rules of stopping: several beams, all returned, captions that end."""
    num_beams = rng.randint(2, 4) if directed else rng.choice([1, 1, 2, 3, 4, 5, 6])
    return {
        "num_beams": num_beams,
        "num_return_sequences": num_beams if directed else rng.randint(1, num_beams),
        "length_penalty": rng.choice([-1.0, 0.0, 1.0, 2.0] if directed else [-1.0, 0.0, 0.5, 1.0, 2.0]),
        "early_stopping": rng.choice([False, True, "never"]),
        "no_repeat_ngram_size": 0 if directed else rng.choice([0, 0, 2, 3]),
        "repetition_penalty": 1.0 if directed else rng.choice([1.0, 1.0, 0.7, 1.5, 2.0]),
        "min_new_tokens": 0 if directed else rng.choice([0, 0, 3, 8]),
        "max_new_tokens": MAX_NEW_TOKENS if directed else rng.randint(8, MAX_NEW_TOKENS),
        "prompt": [] if directed else [rng.randint(8, 50) for _ in range(rng.choice([0, 0, 1, 3]))],
    }


def both_captions(peer, network, pixels, requested):
    """Return our captions' tokens and the peer's, for each image."""
    prompt = requested["prompt"]
    options = GenerationOptions(
        strategy="beam" if requested["num_beams"] > 1 else "greedy",
        max_words=60,
        **{name: value for name, value in requested.items() if name != "prompt"},
        prompt=" ".join(map(str, prompt)),
    )
    images = list(range(pixels.size(0)))
    with torch.no_grad():
        features = network.encode(pixels)
    hypotheses = hypotheses_of(network, IdTokenizer(), features, [options] * len(images))
    ours = [[one.tokens[len(prompt) :] for one in hypotheses[image]] for image in images]
    beam = (
        {"length_penalty": requested["length_penalty"], "early_stopping": requested["early_stopping"]}
        if requested["num_beams"] > 1
        else {}
    )
    theirs = generated(
        peer, pixels, prompt, num_beams=requested["num_beams"], num_return_sequences=requested["num_return_sequences"],
        do_sample=False,
        no_repeat_ngram_size=requested["no_repeat_ngram_size"], repetition_penalty=requested["repetition_penalty"],
        max_new_tokens=requested["max_new_tokens"], min_new_tokens=requested["min_new_tokens"] or None, **beam,
    )  # fmt: skip
    return ours, theirs


def compare(family: str, trials: int, seed: int) -> tuple[int, int, list[object]]:
    """Return how many captions ended before max_new_tokens, how many trials differ by rounding, and those that differ otherwise.

    Two hypotheses whose float32 scores are adjacent may swap between two implementations: a trial that differs is repeated in
    float64, where the captions must be equal.
    """
    ended, rounded, different = 0, 0, []
    for number in range(trials):
        rng = random.Random(f"{family} {seed} {number}")
        if number % 10 == 0:
            level, first = rng.uniform(-2.0, -0.7), number
            peer = end_competes(build(family, first, torch.float32), level, first)
            network = converted(peer, torch.float32)
        pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(number))
        requested = random_options(rng, directed=number % 3 == 2)
        ours, theirs = both_captions(peer, network, pixels, requested)
        ended += sum(len(tokens) < requested["max_new_tokens"] for image in theirs for tokens in image)
        if ours != theirs:
            exact = end_competes(build(family, first, torch.float64), level, first)
            ours, theirs = both_captions(exact, converted(exact), pixels.double(), requested)
            rounded += ours == theirs
            if ours != theirs:
                different.append((requested, ours, theirs))
    return ended, rounded, different


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beam_search_give_the_peers_tokens(family):
    ended, rounded, different = compare(family, NUM_TRIALS, 0)
    assert not different, different[0]
    assert rounded == 0
    assert ended > NUM_TRIALS, "captions that never end do not test the rules of ending"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beam_search_give_the_peers_tokens_in_a_thousand_trials(family):
    _, rounded, different = compare(family, NUM_SLOW_TRIALS, 1)
    assert not different, (len(different), different[0])
    assert rounded <= NUM_SLOW_TRIALS // 200


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.3, 5, 1.0, 0.0), (1.0, 0, 0.6, 0.0), (0.5, 12, 0.9, 0.0), (2.0, 3, 0.05, 0.0),
        (1.0, 0, 1.0, 0.1), (0.8, 9, 0.95, 0.3), (2.0, 0, 1.0, 1.0), (1.0, 4, 0.5, 0.02),
    ],
)  # fmt: skip
def test_the_sampling_distribution_equals_the_peers(temperature, top_k, top_p, min_p):
    processors = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    processors += [TopKLogitsWarper(top_k)] if top_k else []
    processors += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    processors += [MinPLogitsWarper(min_p)] if min_p else []
    scores = torch.randn(200, 61, generator=torch.Generator().manual_seed(0)) * 3
    theirs = processors(torch.zeros(200, 1, dtype=torch.long), scores).softmax(-1)
    options = GenerationOptions(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = torch.stack([sampling_probs(row, options) for row in scores])
    assert torch.equal(ours > 0, theirs > 0)
    assert (ours - theirs).abs().max() < 1e-6  # float32


@pytest.mark.parametrize("family", ["blip", "vit_gpt2", "trocr"])
def test_sampled_tokens_follow_the_sampling_distribution(family):
    """Compare the first tokens of 4,000 sampled captions with their distribution: chi-squared, 99.9th percentile."""
    network = converted(build(family, 4, torch.float32), torch.float32)
    options = GenerationOptions(
        strategy="sample", num_return_sequences=8, temperature=1.5, top_k=12, top_p=0.95, max_new_tokens=1
    )
    pixels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    start = torch.tensor([[network.config.decoder.bos_token_id]])
    features = network.encode(pixels)
    logits, _, _ = network.decode(start, network.start(features))
    probs = sampling_probs(logits[0, -1].float(), options)
    requests = [dataclasses.replace(options, seed=seed) for seed in range(500)]
    sampled = [
        one.tokens[0] if one.tokens else network.config.decoder.eos_token_id
        for hypotheses in hypotheses_of(network, IdTokenizer(), features.select([0] * 500), requests).values()
        for one in hypotheses
    ]
    counts = torch.bincount(torch.tensor(sampled), minlength=len(probs)).double()
    expected = probs.double() * len(sampled)
    assert counts[expected == 0].sum() == 0
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = int(likely.sum()) - 1
    # Wilson and Hilferty 1931: the 99.9th percentile of chi-squared.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
