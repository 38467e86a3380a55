"""The notes behind this project, their numbers run through the real MultiHeadAttention."""

from __future__ import annotations

import pytest
import torch

from docs.notes import (
    CROSS,
    EXAMPLES,
    PICTURES,
    SELF,
    TRANSLATION,
    additive_scores,
    attention_of,
    draw,
    multiplicative_scores,
)
from docs.translation import learn, sentences


@pytest.fixture(scope="module")
def translator():
    pairs = sentences()
    return learn(pairs[:200]), pairs[200:]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_weights_of_the_notes_come_out_of_the_real_attention_and_sum_to_one(example):
    embeddings = torch.randn(len(example.inputs), 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed, weights = attention_of(example, embeddings)
    expected = torch.tensor(example.weights, dtype=torch.float64)

    assert mixed.shape == (len(example.outputs), 8), "as many outputs as queries"
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(example.outputs), dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, expected / expected.sum(-1, keepdim=True), atol=1e-12, rtol=0)


def test_a_contextual_embedding_is_the_weighted_sum_of_the_notes():
    e_we, e_are, e_friends = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    embeddings = torch.stack([e_we, e_are, e_friends])

    ce_ham, ce_dost, ce_hain = attention_of(CROSS, embeddings)[0]
    ce_we, ce_are, ce_friends = attention_of(SELF, embeddings)[0]

    for found, expected in (
        (ce_ham, 0.5 * e_we + 0.3 * e_are + 0.2 * e_friends),
        (ce_dost, 0.2 * e_we + 0.2 * e_are + 0.6 * e_friends),
        (ce_hain, 0.3 * e_we + 0.4 * e_are + 0.3 * e_friends),
        (ce_we, 0.8 * e_we + 0.1 * e_are + 0.1 * e_friends),
        (ce_are, 0.15 * e_we + 0.75 * e_are + 0.1 * e_friends),
        (ce_friends, 0.2 * e_we + 0.1 * e_are + 0.7 * e_friends),
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_heat_map_of_the_translation_has_a_row_a_hindi_word_and_a_column_an_english_one():
    peaks = [row.index(max(row)) for row in TRANSLATION.weights]

    assert (len(TRANSLATION.weights), len(TRANSLATION.weights[0])) == (5, 4)
    assert [TRANSLATION.inputs[peak] for peak in peaks] == ["I", "ice-cream", "eating", "like", "like"]


def test_additive_and_multiplicative_scores_are_kin():
    """Both score every query with every key; with a small tanh the additive one is linear, and then each is a sum of
    a part of the query and a part of the key, which softmax over keys reduces to the key's part: it cannot compare.
    The multiplicative one is the dot product that MultiHeadAttention uses."""
    generator = torch.Generator().manual_seed(2)
    queries, keys = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 5))
    first, second = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    vector = torch.randn(4, generator=generator, dtype=torch.float64)

    additive = additive_scores(queries, keys, first, second, vector)
    multiplicative = multiplicative_scores(queries, keys, torch.eye(4, dtype=torch.float64))
    linear = additive_scores(queries, keys, 1e-6 * first, 1e-6 * second, 1e6 * vector)

    for scores in (additive, multiplicative):
        assert scores.shape == (3, 5)
        torch.testing.assert_close(scores.softmax(-1).sum(-1), torch.ones(3, dtype=torch.float64), atol=1e-12, rtol=0)
    by_hand = sum(vector[c] * torch.tanh(first[c] @ queries[1] + second[c] @ keys[4]) for c in range(4))
    assert additive[1, 4] == pytest.approx(by_hand.item(), abs=1e-12)
    assert multiplicative[1, 4] == pytest.approx((queries[1] @ keys[4]).item(), abs=1e-12)
    torch.testing.assert_close(linear.softmax(-1)[0], linear.softmax(-1)[2], atol=1e-8, rtol=0)
    assert (additive.softmax(-1)[0] - additive.softmax(-1)[2]).abs().max() > 1e-3


def test_a_toy_translation_is_learnt(translator):
    network, unseen = translator
    right = sum(tuple(network.translate(pair.english)[0]) == pair.hindi for pair in unseen)

    assert right / len(unseen) >= 0.95


def test_the_learnt_heat_map_aligns_the_words_though_nobody_told_it(translator):
    network, unseen = translator
    linked = total = 0
    for pair in unseen:
        _, rows = network.translate(pair.english)
        for row, link in list(zip(rows, pair.links, strict=False))[:4]:  # है renders no single word
            linked += int(row.argmax()) == link
            total += 1

    assert linked / total >= 0.9


def test_the_pictures_of_the_docs_are_what_the_code_draws(tmp_path):
    for file in draw(tmp_path):
        assert file.read_text(encoding="utf-8") == (PICTURES / file.name).read_text(encoding="utf-8")
