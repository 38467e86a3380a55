"""Decoding by transformers' rules: greedy and beam search give `generate`'s tokens, on every family."""

from __future__ import annotations

import random

import pytest
import torch

from model import GenerationOptions
from model.decoding import Generation
from tests.peers import FAMILIES, SIZE, build, end_competes, generated
from tests.test_pretrained import converted

DRAWS, MANY = 60, 1_000  # configurations a family: in every test run, and in the long proofs
LONGEST = 20  # tokens


class Ids:
    """A tokenizer of numbers: a prompt is ids in words, and no limit is in words."""

    most_words_a_token = 0

    def encode(self, text: str) -> list[int]:
        return [int(part) for part in text.split()]

    def count_words(self, ids: object) -> int:
        return 0


def drawn(dice: random.Random, *, directed: bool) -> dict[str, object]:
    """Draw options; directed ones see the rules of stopping: many rows, all returned, captions that end."""
    beams = dice.randint(2, 4) if directed else dice.choice([1, 1, 2, 3, 4, 5, 6])
    return {
        "beams": beams,
        "count": beams if directed else dice.randint(1, beams),
        "length_penalty": dice.choice([-1.0, 0.0, 1.0, 2.0] if directed else [-1.0, 0.0, 0.5, 1.0, 2.0]),
        "early_stopping": dice.choice(["false", "true", "never"]),
        "no_repeat": 0 if directed else dice.choice([0, 0, 2, 3]),
        "repetition_penalty": 1.0 if directed else dice.choice([1.0, 1.0, 0.7, 1.5, 2.0]),
        "min_tokens": 0 if directed else dice.choice([0, 0, 3, 8]),
        "max_tokens": LONGEST if directed else dice.randint(8, LONGEST),
        "prompt": [] if directed else [dice.randint(8, 50) for _ in range(dice.choice([0, 0, 1, 3]))],
    }


def both(peer, network, pixels, asked):
    """Return our captions' tokens and the peer's, for each image."""
    prompt = asked["prompt"]
    options = GenerationOptions(
        strategy="beam" if asked["beams"] > 1 else "greedy",
        max_words=60,
        **{name: value for name, value in asked.items() if name != "prompt"},
        prompt=" ".join(map(str, prompt)),
    )
    generation = Generation(network, Ids())
    with torch.no_grad():
        images = list(range(pixels.size(0)))
        generation.add(network.encode(pixels), images, [options] * len(images))
        found = generation.run()
    ours = [[one.tokens[len(prompt) :] for one in found[image]] for image in images]
    early = {"false": False, "true": True, "never": "never"}[asked["early_stopping"]]
    beam = {"length_penalty": asked["length_penalty"], "early_stopping": early} if asked["beams"] > 1 else {}
    theirs = generated(
        peer, pixels, prompt, num_beams=asked["beams"], num_return_sequences=asked["count"], do_sample=False,
        no_repeat_ngram_size=asked["no_repeat"], repetition_penalty=asked["repetition_penalty"],
        max_new_tokens=asked["max_tokens"], min_new_tokens=asked["min_tokens"] or None, **beam,
    )  # fmt: skip
    return ours, theirs


def compared(family: str, draws: int, seed: int) -> tuple[int, list[object]]:
    """Return how many captions ended before their longest, and the draws that differ."""
    ended, different = 0, []
    for number in range(draws):
        dice = random.Random(f"{family} {seed} {number}")
        if number % 10 == 0:
            peer = end_competes(build(family, number, torch.float32), dice.uniform(-2.0, -0.7), number)
            network = converted(peer, torch.float32)
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randn(3, 3, SIZE, SIZE, generator=generator)
        asked = drawn(dice, directed=number % 3 == 2)
        ours, theirs = both(peer, network, pixels, asked)
        ended += sum(len(tokens) < asked["max_tokens"] for image in theirs for tokens in image)
        if ours != theirs:
            different.append((asked, ours, theirs))
    return ended, different


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beams_give_the_peers_tokens(family):
    ended, different = compared(family, DRAWS, 0)
    assert not different, different[0]
    assert ended > DRAWS, "captions that never end would see none of the rules of ending"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_they_do_in_a_thousand_draws(family):
    _, different = compared(family, MANY, 1)
    assert not different, (len(different), different[0])
