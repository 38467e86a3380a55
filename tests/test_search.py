"""The rules of one image's search, without a network: it receives candidates and returns rows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from model import GenerationOptions
from model.logits import penalize_repetition, repeated_ngram_ids, sampling_probs
from model.search import BeamSearch, Candidate, GreedySearch, SampleSearch, WordLimits, make_search

END = 2
NO_LIMITS = WordLimits(lambda tokens: len(tokens), 0, 60, 1)  # every token is a word


def beam(num_beams: int = 2, limits: WordLimits = NO_LIMITS, **options: object) -> BeamSearch:
    return BeamSearch(GenerationOptions(num_beams=num_beams, **options), limits, (), (END,))


def test_the_two_best_rows_continue_and_an_ending_among_the_first_k_is_finished():
    search = beam(2)
    kept = search.advance([Candidate(-1.0, 0, END), Candidate(-1.5, 0, 7), Candidate(-2.0, 0, 8), Candidate(-3.0, 0, 9)])

    assert [candidate.token for candidate in kept] == [7, 8]
    assert search.rows == [(7,), (8,)]
    assert [hypothesis.tokens for _, hypothesis in search.pool] == [()]


def test_an_ending_ranked_below_the_first_k_is_dropped():
    search = beam(2)
    kept = search.advance([Candidate(-1.0, 0, 7), Candidate(-1.5, 0, 8), Candidate(-2.0, 0, END), Candidate(-3.0, 0, 9)])

    assert [candidate.token for candidate in kept] == [7, 8]
    assert search.pool == []


def test_a_search_stops_when_no_live_row_can_beat_the_worst_finished_one():
    search = beam(2, length_penalty=0.0)
    search.advance([Candidate(-0.1, 0, END), Candidate(-1.0, 0, 7), Candidate(-2.0, 0, 8), Candidate(-3.0, 0, 9)])
    kept = search.advance([Candidate(-1.1, 0, END), Candidate(-1.2, 0, 5), Candidate(-2.2, 1, 5), Candidate(-4.0, 1, 6)])

    assert kept == []
    assert search.done
    assert [hypothesis.tokens for hypothesis in search.results()] == [()]


@pytest.mark.parametrize(("penalty", "best"), [(0.0, ()), (2.0, (7, 7, 7))])
def test_the_length_penalty_decides_between_a_short_and_a_long_caption(penalty, best):
    search = beam(2, length_penalty=penalty, max_new_tokens=8)
    search.advance([Candidate(-1.0, 0, END), Candidate(-1.0, 0, 7), Candidate(-9.0, 0, 8), Candidate(-9.5, 0, 9)])
    for total in (-1.2, -1.4):
        if not search.done:
            search.advance([Candidate(total, 0, 7), Candidate(-9.0, 1, 8), Candidate(-9.5, 0, 9), Candidate(-9.9, 1, 9)])
    if not search.done:
        search.advance([Candidate(-1.6, 0, END), Candidate(-9.0, 1, 8), Candidate(-9.5, 0, 9), Candidate(-9.9, 1, 9)])

    assert search.results()[0].tokens == best


def test_max_new_tokens_counts_the_end_and_ends_a_caption_unfinished():
    search = GreedySearch(GenerationOptions(strategy="greedy", max_new_tokens=2), NO_LIMITS, (4,), (END,))
    assert search.advance([Candidate(-1.0, 0, 5)])
    assert search.advance([Candidate(-2.0, 0, 6)]) == []
    (caption,) = search.results()
    assert (caption.tokens, caption.is_finished) == ((4, 5, 6), False)


def test_a_token_that_starts_a_word_beyond_the_limit_ends_the_caption_before_it():
    limits = WordLimits(len, 0, 2, 1)
    search = GreedySearch(GenerationOptions(strategy="greedy", max_words=2), limits, (), (END,))
    search.advance([Candidate(-1.0, 0, 5)])
    search.advance([Candidate(-2.0, 0, 6)])
    assert search.advance([Candidate(-3.0, 0, 7)]) == []
    (caption,) = search.results()
    assert (caption.tokens, caption.is_finished, caption.log_probability) == ((5, 6), False, -2.0)


def test_a_caption_that_several_excess_words_end_keeps_its_best_score():
    limits = WordLimits(len, 0, 1, 1)
    search = beam(3, limits, num_return_sequences=3, max_words=1)
    search.advance([Candidate(-1.0, 0, 5), Candidate(-1.5, 0, 6), Candidate(-2.0, 0, 7), Candidate(-3.0, 0, 8)])
    search.advance([Candidate(-1.1, 0, 9), Candidate(-1.2, 0, 8), Candidate(-1.3, 0, 7), Candidate(-1.6, 1, 9)])
    assert [score for score, _ in search.pool] == [pytest.approx(-1.1 / 2)]
    assert [hypothesis.tokens for hypothesis in search.results()] == [(5,), (6,), (7,)]


def test_a_limit_of_zero_words_gives_an_empty_caption():
    search = beam(2, WordLimits(len, 0, 0, 1), max_words=0)
    search.advance([Candidate(-1.0, 0, 5), Candidate(-1.5, 0, 6), Candidate(-2.0, 0, 7), Candidate(-3.0, 0, 8)])
    assert search.done
    assert [hypothesis.tokens for hypothesis in search.results()] == [()]


def test_the_end_is_banned_until_enough_words_have_started():
    search = GreedySearch(GenerationOptions(strategy="greedy", min_words=2), WordLimits(len, 2, 60, 1), (), (END,))
    banned = []
    for token in (5, 6, 7):
        banned.append(search.bans_end(0))
        search.advance([Candidate(-1.0, 0, token)])
    assert banned == [True, True, False]


def test_a_search_whose_tokens_are_all_banned_returns_its_rows():
    search = GreedySearch(GenerationOptions(strategy="greedy"), NO_LIMITS, (), (END,))
    search.advance([Candidate(-1.0, 0, 5)])
    assert search.advance([]) == []
    assert search.results()[0].tokens == (5,)


def test_equal_scores_are_ordered_by_tokens():
    search = beam(2, num_return_sequences=2, length_penalty=0.0)
    search.advance([Candidate(-1.0, 0, 9), Candidate(-1.0, 0, 7), Candidate(-5.0, 0, 8), Candidate(-6.0, 0, 6)])
    search.advance([Candidate(-2.0, 0, END), Candidate(-2.0, 1, END), Candidate(-7.0, 0, 3), Candidate(-8.0, 1, 3)])
    assert [hypothesis.tokens for hypothesis in search.results()] == [(7,), (9,)]


def test_the_common_prefix_is_shared_by_all_rows_and_finished_captions():
    search = beam(2)
    search.advance([Candidate(-1.0, 0, 7), Candidate(-9.0, 0, 8), Candidate(-9.1, 0, 9), Candidate(-9.2, 0, 6)])
    assert search.common_prefix() == ()
    search.advance([Candidate(-1.1, 0, 4), Candidate(-1.2, 0, 5), Candidate(-9.5, 1, 9), Candidate(-9.6, 1, 6)])
    assert search.common_prefix() == (7,)


def test_each_sampled_row_keeps_its_own_generator_when_others_end():
    search = make_search(GenerationOptions(strategy="sample", num_return_sequences=3), NO_LIMITS, (), (END,))
    assert isinstance(search, SampleSearch)
    search.advance([Candidate(-1.0, 0, 5), Candidate(-1.0, 1, END), Candidate(-1.0, 2, 6)])
    assert search.order == [0, 2]
    search.advance([Candidate(-2.0, 1, END)])  # row 0 has no candidate: all its tokens were banned
    assert search.done
    assert sorted(hypothesis.tokens for hypothesis in search.results()) == [(), (5,), (6,)]


def test_the_repetition_penalty_makes_used_tokens_less_likely_for_both_signs():
    scores = torch.tensor([2.0, -2.0, 1.0, 0.5])
    assert penalize_repetition(scores, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0, 0.5]
    assert scores.tolist() == [2.0, -2.0, 1.0, 0.5], "the argument is not changed"


@pytest.mark.parametrize(
    ("ids", "size", "banned"),
    [([1, 2, 3, 1, 2], 3, {3}), ([1, 2, 1, 3, 1], 2, {2, 3}), ([5, 6], 1, {5, 6}), ([1, 2], 3, set()), ([], 2, set())],
)
def test_an_ngram_is_not_completed_twice(ids, size, banned):
    assert repeated_ngram_ids(ids, size) == banned


def test_sampling_probs_are_those_of_the_filtered_distribution():
    scores = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
    full = sampling_probs(scores, GenerationOptions(temperature=1.0, top_k=0, top_p=1.0))
    torch.testing.assert_close(full, scores.softmax(0))
    assert (sampling_probs(scores, GenerationOptions(temperature=1.0, top_k=2, top_p=1.0)) > 0).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (sampling_probs(scores, GenerationOptions(temperature=1.0, top_k=0, top_p=0.7)) > 0).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (sampling_probs(scores, GenerationOptions(temperature=1.0, top_k=0, top_p=0.0)) > 0).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]
    torch.testing.assert_close(
        sampling_probs(scores, GenerationOptions(temperature=2.0, top_k=0, top_p=1.0)), (scores / 2).softmax(0)
    )


def test_sampled_tokens_follow_their_probabilities():
    probs = sampling_probs(torch.tensor([1.0, 0.5, 0.0, -2.0]), GenerationOptions(temperature=0.8, top_k=3, top_p=1.0))
    generator = torch.Generator().manual_seed(0)
    counts = Counter(int(torch.multinomial(probs, 1, generator=generator)) for _ in range(4000))
    chi_squared = sum((counts[i] - 4000 * probs[i].item()) ** 2 / (4000 * probs[i].item()) for i in range(3))
    assert counts[3] == 0
    assert chi_squared < 13.8  # 2 degrees of freedom, p = 0.001


def test_each_end_token_ends_a_caption_and_is_kept_for_its_score():
    first, second = END, 9
    search = BeamSearch(GenerationOptions(num_beams=2), NO_LIMITS, (), (first, second))
    assert search.num_candidates == 3 * 2  # two remain if both ends of both rows are among them
    search.advance([Candidate(-0.1, 0, 7), Candidate(-0.5, 0, 8), Candidate(-3.0, 0, first), Candidate(-4.0, 0, second)])
    search.advance([Candidate(-0.2, 0, second), Candidate(-0.3, 0, first), Candidate(-9.0, 0, 5), Candidate(-9.5, 0, 6)])
    assert [(one.tokens, one.end) for one in search.results()] == [((7,), second)]
    assert {hypothesis.end for _, hypothesis in search.pool} == {None, second}
