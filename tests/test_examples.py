"""The worked examples of cross-attention are computed by the real MultiHeadAttention, and a small translation is learned."""

from __future__ import annotations

import pytest
import torch

from examples.cross_attention import (
    CROSS,
    EXAMPLES,
    FIGURES_FOLDER,
    SELF,
    TRANSLATION,
    additive_scores,
    attention_of,
    multiplicative_scores,
    write_figures,
)
from examples.translation import sentences, train_translator


@pytest.fixture(scope="module")
def translator():
    pairs = sentences()
    return train_translator(pairs[:200]), pairs[200:]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_multi_head_attention_computes_the_weights_of_each_example_and_they_sum_to_one(example):
    embeddings = torch.randn(len(example.inputs), 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    contextual, weights = attention_of(example, embeddings)
    expected = torch.tensor(example.weights, dtype=torch.float64)

    assert contextual.shape == (len(example.outputs), 8), "one output per query"
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(example.outputs), dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, expected / expected.sum(-1, keepdim=True), atol=1e-12, rtol=0)


def test_a_contextual_embedding_is_the_weighted_sum_of_the_input_embeddings():
    e_we, e_are, e_friends = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    embeddings = torch.stack([e_we, e_are, e_friends])

    ce_ham, ce_dost, ce_hain = attention_of(CROSS, embeddings)[0]
    ce_we, ce_are, ce_friends = attention_of(SELF, embeddings)[0]

    for actual, expected in (
        (ce_ham, 0.5 * e_we + 0.3 * e_are + 0.2 * e_friends),
        (ce_dost, 0.2 * e_we + 0.2 * e_are + 0.6 * e_friends),
        (ce_hain, 0.3 * e_we + 0.4 * e_are + 0.3 * e_friends),
        (ce_we, 0.8 * e_we + 0.1 * e_are + 0.1 * e_friends),
        (ce_are, 0.15 * e_we + 0.75 * e_are + 0.1 * e_friends),
        (ce_friends, 0.2 * e_we + 0.1 * e_are + 0.7 * e_friends),
    ):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_the_translation_has_one_row_per_hindi_word_and_one_column_per_english_word():
    peaks = [row.index(max(row)) for row in TRANSLATION.weights]

    assert (len(TRANSLATION.weights), len(TRANSLATION.weights[0])) == (5, 4)
    assert [TRANSLATION.inputs[peak] for peak in peaks] == ["I", "ice-cream", "eating", "like", "like"]


def test_linear_additive_scores_do_not_depend_on_the_query_and_tanh_makes_them_depend_on_it():
    """For small inputs tanh is linear. A score is then a sum of a term of the query and a term of the key, and softmax over keys
    removes the term of the query. The multiplicative score is the dot product that MultiHeadAttention uses."""
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


def test_the_network_translates_sentences_that_were_not_in_training(translator):
    network, held_out = translator
    right = sum(tuple(network.translate(pair.english)[0]) == pair.hindi for pair in held_out)

    assert right / len(held_out) >= 0.95


def test_the_learned_map_aligns_words_without_alignment_labels(translator):
    network, held_out = translator
    linked = total = 0
    for pair in held_out:
        _, rows = network.translate(pair.english)
        for row, link in list(zip(rows, pair.links, strict=False))[:4]:  # है has no English word
            linked += int(row.argmax()) == link
            total += 1

    assert linked / total >= 0.9


def test_the_figures_in_the_docs_equal_the_generated_ones(tmp_path):
    for file in write_figures(tmp_path):
        assert file.read_text(encoding="utf-8") == (FIGURES_FOLDER / file.name).read_text(encoding="utf-8")
