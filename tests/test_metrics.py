"""Tokens are equal to the Java tokenizer's, scores are equal to pycocoevalcap's."""

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

from evaluation import bleu, cider, common_subsequence_length, metrics, ptb, ptb_tokens, rouge_l, scored_tokens

CASES = [line.split("\t") for line in (Path(__file__).parent / "ptb_cases.tsv").read_text(encoding="utf-8").splitlines()]
WORDS = st.lists(st.sampled_from(["a", "dog", "runs", "on", "grass", "red", "ball", "the"]), max_size=9)
CHUNKS = [
    "A", "dog", "Dogs,", "ball.", "cannot", "Gonna.", "Co.", "no.", "op.", "3", "x.", ".", "..", "t-shirt!", "man's", "D.C.", "?",
]  # fmt: skip
CORPUS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=7)


def pairs(corpus):
    return [candidate for candidate, _ in corpus], [references for _, references in corpus]


def peer(scorer, corpus):
    """Return pycocoevalcap's scores of the same tokens."""
    references = {index: [" ".join(text) for text in texts] for index, (_, texts) in enumerate(corpus)}
    candidates = {index: [" ".join(candidate)] for index, (candidate, _) in enumerate(corpus)}
    with contextlib.redirect_stdout(io.StringIO()):
        return scorer.compute_score(references, candidates)


@pytest.mark.parametrize(("raw", "tokens"), CASES, ids=[raw for raw, _ in CASES])
def test_tokens_equal_those_of_the_java_tokenizer(raw, tokens):
    """Recorded from Stanford's PTBTokenizer 3.4.1 with "A dog" as the next line."""
    assert " ".join(ptb_tokens(raw, "A dog")) == tokens


def test_the_next_line_decides_whether_an_abbreviation_ends_a_sentence():
    assert ptb_tokens("in Washington D.C.", "A dog")[-2:] == ["d.c.", "."]
    assert ptb_tokens("in Washington D.C.", "a dog")[-1] == "d.c."
    assert scored_tokens("in Washington D.C.") == ["in", "washington", "d.c."]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CHUNKS)))
def test_shortcuts_give_the_same_tokens_as_the_rules(chunks):
    """Words, and chunks that do not depend on their neighbors, skip the rules."""
    text = " ".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptb, "_PLAIN", re.compile("(?!)"))  # no text is plain
        expected = ptb._by_rules(text, "A")
    assert ptb_tokens(text) == ptb._by_rules(text, "A") == expected


def test_a_long_run_of_combining_letters_is_one_token():
    assert len(ptb_tokens("क" + "\u093d" * 60 + " x")) == 2


def test_punctuation_is_not_scored_and_brackets_are():
    assert scored_tokens('A dog (brown), runs; "fast" - very!') == ["a", "dog", "-lrb-", "brown", "-rrb-", "runs", "fast", "very"]


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_bleu_equals_pycocoevalcap(corpus):
    from pycocoevalcap.bleu.bleu import Bleu

    expected, per_image = peer(Bleu(4), corpus)
    scores = bleu(*pairs(corpus))
    np.testing.assert_allclose(scores.scores, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(scores.per_image, np.array(per_image).T, rtol=1e-9, atol=1e-15)


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_rouge_l_equals_pycocoevalcap(corpus):
    from pycocoevalcap.rouge.rouge import Rouge

    expected, per_image = peer(Rouge(), corpus)
    scores = rouge_l(*pairs(corpus))
    np.testing.assert_allclose(scores, per_image, rtol=1e-9)
    np.testing.assert_allclose(scores.mean(), expected, rtol=1e-9)


@settings(max_examples=200, deadline=None)
@given(CORPUS)
def test_cider_equals_pycocoevalcap(corpus):
    from pycocoevalcap.cider.cider import Cider

    assume(any(text for _, references in corpus for text in references))  # pycocoevalcap fails if no reference has a word
    expected, per_image = peer(Cider(), corpus)
    scores = cider(*pairs(corpus))
    np.testing.assert_allclose(scores, per_image, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scores.mean(), expected, rtol=1e-9, atol=1e-12)


def test_images_that_share_their_only_word_are_counted_separately():
    scores = bleu([["a"], ["a"], ["b"]], [[["a"]], [["a"]], [["a"], ["b", "b"]]])
    assert scores.correct_per_image[:, 0].tolist() == [1, 1, 1]
    assert cider([["a"], ["a"], ["b"]], [[["a"]], [["a"]], [["c"]]]).tolist()[2] == 0.0


def test_plain_cider_has_no_clipping_and_no_length_penalty():
    references = [[["a", "red", "dog"]], [["the", "ball"]]]
    same, doubled = [["a", "red", "dog"], ["x"]], [["a", "red", "dog"] * 2, ["x"]]
    assert cider(same, references)[0] == pytest.approx(cider(same, references, plain=True)[0])
    assert cider(doubled, references)[0] < cider(doubled, references, plain=True)[0]


def test_scores_do_not_depend_on_the_chunk_size(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [[str(token) for token in rng.integers(0, 9, rng.integers(0, 8))] for _ in range(60)]
    candidates, references = texts[:20], [texts[20 + 2 * index : 22 + 2 * index] for index in range(20)]
    expected = bleu(candidates, references), cider(candidates, references)
    monkeypatch.setattr(metrics, "_CHUNK", 3)
    assert bleu(candidates, references).correct == expected[0].correct
    np.testing.assert_allclose(cider(candidates, references), expected[1], rtol=1e-12)


@given(WORDS, WORDS)
def test_the_common_subsequence_length_equals_dynamic_programming(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if left == right else max(table[i, j + 1], table[i + 1, j])
    assert common_subsequence_length(first, second) == common_subsequence_length(second, first) == table[-1, -1]


def test_candidates_without_matching_references_are_rejected():
    with pytest.raises(ValueError, match="2 candidates but references of 1"):
        cider([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="no reference"):
        bleu([["a"]], [[]])


def test_there_are_many_different_recorded_cases():
    assert len(CASES) > 300
    assert all(first != second for first, second in pairwise(CASES))
