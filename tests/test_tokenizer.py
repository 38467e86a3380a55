"""Text to ids and back, and words as docs/service.md defines them."""

from __future__ import annotations

import itertools

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model import CaptionTokenizer, CheckpointError, TextError
from model.tokenizer import BOS_ID, EOS_ID, PAD_ID
from tests.conftest import SENTENCES

MIXED = [*SENTENCES, "一个男人在踢足球。", "一只狗在草地上跑", "สุนัขวิ่งบนหญ้า", "मुझे आइसक्रीम खाना पसंद है", "犬が草の上を走る"]
TRAINED = CaptionTokenizer.train(MIXED * 4, 420)
KEPT = CaptionTokenizer.train(MIXED * 4, 420, lowercase=False)


def words(text: str, tokenizer: CaptionTokenizer = KEPT) -> list[str]:
    ids = tokenizer.encode(text)
    decoded = tokenizer.decode(ids)
    return [decoded[span.start : span.end] for span in tokenizer.words(ids)]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_every_text_comes_back_from_its_ids(text):
    encodable = text.encode("utf-8", errors="ignore").decode()  # lone surrogates have no bytes
    ids = KEPT.encode(encodable)
    assert KEPT.decode(ids) == encodable
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids), "special tokens in a text are only text"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_words_are_ordered_and_disjoint_and_lie_in_the_text(text):
    ids = TRAINED.encode(text.encode("utf-8", errors="ignore").decode())
    decoded, spans = TRAINED.decode(ids), TRAINED.words(ids)
    assert all(0 <= a.start < a.end <= b.start for a, b in itertools.pairwise(spans))
    assert all(span.end <= len(decoded) for span in spans)
    assert all(span.tokens and max(span.tokens) < len(ids) for span in spans)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, TRAINED.size - 1), max_size=12))
def test_any_ids_have_a_text_and_words(ids):
    decoded = TRAINED.decode(ids)
    assert all(decoded[span.start : span.end] for span in TRAINED.words(ids))
    assert TRAINED.count_words(ids) <= len(ids) * TRAINED.max_words_per_token


def test_the_tokens_of_a_word_hold_its_text():
    ids = TRAINED.encode("two dogs play, with a red ball")
    text = TRAINED.decode(ids)
    for span in TRAINED.words(ids):
        assert text[span.start : span.end] in TRAINED.decode([ids[token] for token in span.tokens])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a brown dog runs.", ["a", "brown", "dog", "runs"]),
        ("the woman's well-known hat", ["the", "woman's", "well-known", "hat"]),
        ("'quoted' -- rock-'n'-roll", ["quoted", "rock", "n", "roll"]),
        ("3 dogs, 12 cats & 1st place!", ["3", "dogs", "12", "cats", "1st", "place"]),
        ("l’homme d'à côté", ["l’homme", "d'à", "côté"]),
        ("dogs' and O'Neil's", ["dogs", "and", "O'Neil's"]),
        ("मुझे आइसक्रीम", ["मुझे", "आइसक्रीम"]),
        ("ein Hund, der läuft", ["ein", "Hund", "der", "läuft"]),
        ("", []),
        (" ... !?", []),
        ("😀 smiles 😀", ["smiles"]),
    ],
)
def test_words_of_spaced_scripts_are_runs_of_letters_marks_digits_and_inner_joiners(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize("text", ["一个男人在踢足球。", "犬が草の上を走る", "สุนัขวิ่ง", "စာအုပ်", "ភាសាខ្មែរ", "ພາສາລາວ"])
def test_words_of_spaceless_scripts_are_the_shortest_groups_of_tokens_that_end_on_a_code_point(text):
    ids = KEPT.encode(text)
    decoded = KEPT.decode(ids)
    spans = KEPT.words(ids)
    assert "".join(decoded[span.start : span.end] for span in spans) == decoded.rstrip("。")
    ends = set()
    for count in range(1, len(ids) + 1):
        prefix = KEPT.decode(ids[:count])
        if sum(len(KEPT._bytes[token]) for token in ids[:count]) == len(prefix.encode()):
            ends.add(len(prefix))
    assert {span.end for span in spans} == {end for end in ends if end <= len(decoded.rstrip("。"))}


def test_a_run_is_cut_where_a_script_of_the_other_kind_begins():
    found = words("T恤 and 3只dogs")
    assert found[0] == "T"
    assert found[-1] == "dogs"
    assert "and" in found
    assert "3" in found


def test_a_token_that_crosses_two_words_counts_with_each():
    inner = tokenizers.Tokenizer.from_str(KEPT.to_json())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["<pad>", "<start>", "<end>"], vocab_size=400, show_progress=False)
    inner.train_from_iterator(["x,y"] * 5, trainer)
    tokenizer = CaptionTokenizer(inner)
    ids = tokenizer.encode("x,y")
    spans = tokenizer.words(ids)
    assert len(spans) == 2
    assert len(ids) == 1, "the trainer saw nothing else"
    assert spans[0].tokens == spans[1].tokens == (0,)


def test_lower_case_is_for_the_tokens_and_the_text_stays_aligned():
    given_text = "A Dog İn Straße"
    ids = TRAINED.encode(given_text)
    places = TRAINED.align(given_text)
    decoded = TRAINED.decode(ids)

    assert ids[:2] == TRAINED.encode("a dog")
    assert len(places) == len(decoded)
    assert given_text[places[decoded.index("straße")] :] == "Straße"


def test_written_out_special_tokens_are_text():
    ids = TRAINED.encode("a <end> b <pad><start>")
    assert not {0, 1, 2} & set(ids)
    assert TRAINED.decode(ids) == "a <end> b <pad><start>"
    assert TRAINED.decode(TRAINED.encode("a\0 <pad> dog")) == "a\0 <pad> dog"


def test_a_tokenizer_is_its_json():
    again = CaptionTokenizer.from_json(TRAINED.to_json())
    assert again.encode(MIXED[0] + MIXED[6]) == TRAINED.encode(MIXED[0] + MIXED[6])
    assert again.size == TRAINED.size


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": {}}', "not json"])
def test_a_broken_tokenizer_file_is_a_checkpoint_error(text):
    with pytest.raises(CheckpointError):
        CaptionTokenizer.from_json(text)


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(TextError, match="259"):
        CaptionTokenizer.train(MIXED, 100)
