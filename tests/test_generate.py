"""Decoding by transformers' rules: greedy and beam search give `generate`'s tokens, on every family."""

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

DRAWS, MANY = 60, 1_000  # configurations a family: in every test run, and in the long proofs
LONGEST = 20  # tokens


class Ids:
    """A tokenizer of numbers: a prompt is ids in words, and no limit is in words."""

    max_words_per_token = 0

    def encode(self, text: str) -> list[int]:
        return [int(part) for part in text.split()]

    def count_words(self, ids: object) -> int:
        return 0


def drawn(dice: random.Random, *, directed: bool) -> dict[str, object]:
    """Draw options; directed ones see the rules of stopping: many rows, all returned, captions that end."""
    num_beams = dice.randint(2, 4) if directed else dice.choice([1, 1, 2, 3, 4, 5, 6])
    return {
        "num_beams": num_beams,
        "num_return_sequences": num_beams if directed else dice.randint(1, num_beams),
        "length_penalty": dice.choice([-1.0, 0.0, 1.0, 2.0] if directed else [-1.0, 0.0, 0.5, 1.0, 2.0]),
        "early_stopping": dice.choice([False, True, "never"]),
        "no_repeat_ngram_size": 0 if directed else dice.choice([0, 0, 2, 3]),
        "repetition_penalty": 1.0 if directed else dice.choice([1.0, 1.0, 0.7, 1.5, 2.0]),
        "min_new_tokens": 0 if directed else dice.choice([0, 0, 3, 8]),
        "max_new_tokens": LONGEST if directed else dice.randint(8, LONGEST),
        "prompt": [] if directed else [dice.randint(8, 50) for _ in range(dice.choice([0, 0, 1, 3]))],
    }


def both(peer, network, pixels, asked):
    """Return our captions' tokens and the peer's, for each image."""
    prompt = asked["prompt"]
    options = GenerationOptions(
        strategy="beam" if asked["num_beams"] > 1 else "greedy",
        max_words=60,
        **{name: value for name, value in asked.items() if name != "prompt"},
        prompt=" ".join(map(str, prompt)),
    )
    images = list(range(pixels.size(0)))
    with torch.no_grad():
        features = network.encode(pixels)
    found = hypotheses_of(network, Ids(), features, [options] * len(images))
    ours = [[one.tokens[len(prompt) :] for one in found[image]] for image in images]
    beam = {"length_penalty": asked["length_penalty"], "early_stopping": asked["early_stopping"]} if asked["num_beams"] > 1 else {}
    theirs = generated(
        peer, pixels, prompt, num_beams=asked["num_beams"], num_return_sequences=asked["num_return_sequences"], do_sample=False,
        no_repeat_ngram_size=asked["no_repeat_ngram_size"], repetition_penalty=asked["repetition_penalty"],
        max_new_tokens=asked["max_new_tokens"], min_new_tokens=asked["min_new_tokens"] or None, **beam,
    )  # fmt: skip
    return ours, theirs


def compared(family: str, draws: int, seed: int) -> tuple[int, int, list[object]]:
    """Return how many captions ended before their longest, how many draws differ by rounding, and those that truly do.

    Two hypotheses whose scores are one float32 apart may change places between two implementations: a draw that differs is
    asked again in float64, where it has to be equal.
    """
    ended, rounded, different = 0, 0, []
    for number in range(draws):
        dice = random.Random(f"{family} {seed} {number}")
        if number % 10 == 0:
            level, first = dice.uniform(-2.0, -0.7), number
            peer = end_competes(build(family, first, torch.float32), level, first)
            network = converted(peer, torch.float32)
        pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(number))
        asked = drawn(dice, directed=number % 3 == 2)
        ours, theirs = both(peer, network, pixels, asked)
        ended += sum(len(tokens) < asked["max_new_tokens"] for image in theirs for tokens in image)
        if ours != theirs:
            exact = end_competes(build(family, first, torch.float64), level, first)
            ours, theirs = both(exact, converted(exact), pixels.double(), asked)
            rounded += ours == theirs
            if ours != theirs:
                different.append((asked, ours, theirs))
    return ended, rounded, different


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beams_give_the_peers_tokens(family):
    ended, rounded, different = compared(family, DRAWS, 0)
    assert not different, different[0]
    assert rounded == 0
    assert ended > DRAWS, "captions that never end would see none of the rules of ending"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_they_do_in_a_thousand_draws(family):
    _, rounded, different = compared(family, MANY, 1)
    assert not different, (len(different), different[0])
    assert rounded <= MANY // 200


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.3, 5, 1.0, 0.0), (1.0, 0, 0.6, 0.0), (0.5, 12, 0.9, 0.0), (2.0, 3, 0.05, 0.0),
        (1.0, 0, 1.0, 0.1), (0.8, 9, 0.95, 0.3), (2.0, 0, 1.0, 1.0), (1.0, 4, 0.5, 0.02),
    ],
)  # fmt: skip
def test_the_sampling_distribution_is_the_peers(temperature, top_k, top_p, min_p):
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
def test_sampling_draws_from_it(family):
    """The first token of 4,000 drawn captions against its distribution: chi-squared, 99.9th percentile."""
    network = converted(build(family, 4, torch.float32), torch.float32)
    options = GenerationOptions(strategy="sample", num_return_sequences=8, temperature=1.5, top_k=12, top_p=0.95, max_new_tokens=1)
    pixels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    start = torch.tensor([[network.config.decoder.bos_token_id]])
    features = network.encode(pixels)
    logits, _, _ = network.decode(start, network.start(features))
    odds = sampling_probs(logits[0, -1].float(), options)
    samples = [dataclasses.replace(options, seed=seed) for seed in range(500)]
    drawn = [
        one.tokens[0] if one.tokens else network.config.decoder.eos_token_id
        for found in hypotheses_of(network, Ids(), features.select([0] * 500), samples).values()
        for one in found
    ]
    counts = torch.bincount(torch.tensor(drawn), minlength=len(odds)).double()
    expected = odds.double() * len(drawn)
    assert counts[expected == 0].sum() == 0
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = int(likely.sum()) - 1
    # Wilson and Hilferty 1931: the 99.9th percentile of chi-squared.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
