"""Tokens equal to the Java tokenizer's, scores equal to pycocoevalcap's."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation import bleu, cider, common_length, kendall_tau_c, ptb, ptb_tokens, rouge_l, scored_tokens

CASES = [line.split("\t") for line in (Path(__file__).parent / "ptb_cases.tsv").read_text(encoding="utf-8").splitlines()]
WORDS = st.lists(st.sampled_from(["a", "dog", "runs", "on", "grass", "red", "ball", "the"]), max_size=9)
CHUNKS = [
    "A", "dog", "Dogs,", "ball.", "cannot", "Gonna.", "Co.", "no.", "op.", "3", "x.", ".", "..", "t-shirt!", "man's", "D.C.", "?",
]  # fmt: skip
CORPUS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=7)


def pairs(corpus):
    return [candidate for candidate, _ in corpus], [references for _, references in corpus]


def peer(scorer, corpus):
    """What pycocoevalcap computes of the same tokens."""
    known = {number: [" ".join(text) for text in references] for number, (_, references) in enumerate(corpus)}
    candidates = {number: [" ".join(candidate)] for number, (candidate, _) in enumerate(corpus)}
    with contextlib.redirect_stdout(io.StringIO()):
        return scorer.compute_score(known, candidates)


@pytest.mark.parametrize(("raw", "tokens"), CASES, ids=[raw for raw, _ in CASES])
def test_tokens_are_those_of_the_java_tokenizer(raw, tokens):
    """Recorded from Stanford's PTBTokenizer 3.4.1 with "A dog" as the next line."""
    assert " ".join(ptb_tokens(raw, "A dog")) == tokens


def test_the_next_line_decides_whether_an_abbreviation_ends_a_sentence():
    assert ptb_tokens("in Washington D.C.", "A dog")[-2:] == ["d.c.", "."]
    assert ptb_tokens("in Washington D.C.", "a dog")[-1] == "d.c."
    assert scored_tokens("in Washington D.C.") == ["in", "washington", "d.c."]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CHUNKS)))
def test_the_short_cuts_find_what_the_rules_find(chunks):
    """A word, and a chunk whose neighbours cannot change it, skip the rules."""
    text = " ".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptb, "_PLAIN", re.compile("(?!)"))  # nothing is plain
        expected = ptb._by_rules(text, "A")
    assert ptb_tokens(text) == ptb._by_rules(text, "A") == expected


def test_a_row_of_marks_that_are_letters_does_not_take_for_ever():
    assert len(ptb_tokens("क" + "\u093d" * 60 + " x")) == 2


def test_experts_who_all_say_the_same_cannot_be_compared():
    assert kendall_tau_c(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 1, 2, 2])) == 1.0
    assert kendall_tau_c(np.array([0.4, 0.3, 0.2, 0.1]), np.array([1, 1, 2, 2])) == -1.0
    with pytest.raises(ValueError, match="no order"):
        kendall_tau_c(np.ones(3), np.array([1, 2, 3]))


def test_punctuation_is_not_scored_but_brackets_are():
    assert scored_tokens('A dog (brown), runs; "fast" - very!') == ["a", "dog", "-lrb-", "brown", "-rrb-", "runs", "fast", "very"]


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_bleu_equals_the_reference(corpus):
    from pycocoevalcap.bleu.bleu import Bleu

    expected, per_image = peer(Bleu(4), corpus)
    found = bleu(*pairs(corpus))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.per_image, np.array(per_image).T, rtol=1e-9, atol=1e-15)


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_rouge_l_equals_the_reference(corpus):
    from pycocoevalcap.rouge.rouge import Rouge

    expected, per_image = peer(Rouge(), corpus)
    found = rouge_l(*pairs(corpus))
    np.testing.assert_allclose(found, per_image, rtol=1e-9)
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-9)


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_cider_equals_the_reference(corpus):
    from pycocoevalcap.cider.cider import Cider

    assume(any(text for _, references in corpus for text in references))  # without a word the reference code stops
    expected, per_image = peer(Cider(), corpus)
    found = cider(*pairs(corpus))
    np.testing.assert_allclose(found, per_image, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-9, atol=1e-12)


def test_images_that_share_their_only_word_are_counted_apart():
    found = bleu([["a"], ["a"], ["b"]], [[["a"]], [["a"]], [["a"], ["b", "b"]]])
    assert found.correct_of[:, 0].tolist() == [1, 1, 1]
    assert cider([["a"], ["a"], ["b"]], [[["a"]], [["a"]], [["c"]]]).tolist()[2] == 0.0


def test_plain_cider_neither_clips_nor_punishes_length():
    references = [[["a", "red", "dog"]], [["the", "ball"]]]
    same, doubled = [["a", "red", "dog"], ["x"]], [["a", "red", "dog"] * 2, ["x"]]
    assert cider(same, references)[0] == pytest.approx(cider(same, references, plain=True)[0])
    assert cider(doubled, references)[0] < cider(doubled, references, plain=True)[0]


def test_scores_do_not_depend_on_how_many_images_are_held_at_once(monkeypatch):
    from evaluation import measures

    dice = np.random.default_rng(0)
    texts = [[str(number) for number in dice.integers(0, 9, dice.integers(0, 8))] for _ in range(60)]
    candidates, references = texts[:20], [texts[20 + 2 * number : 22 + 2 * number] for number in range(20)]
    whole = bleu(candidates, references), cider(candidates, references)
    monkeypatch.setattr(measures, "_CHUNK", 3)
    assert bleu(candidates, references).correct == whole[0].correct
    np.testing.assert_allclose(cider(candidates, references), whole[1], rtol=1e-12)


@given(WORDS, WORDS)
def test_the_common_subsequence_is_as_long_as_the_table_says(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if left == right else max(table[i, j + 1], table[i + 1, j])
    assert common_length(one, other) == common_length(other, one) == table[-1, -1]


def test_candidates_and_references_must_belong_together():
    with pytest.raises(ValueError, match="2 candidates but references of 1"):
        cider([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="no reference"):
        bleu([["a"]], [[]])


def test_the_recorded_cases_are_many_and_differ():
    assert len(CASES) > 300
    assert all(one != other for one, other in pairwise(CASES))
