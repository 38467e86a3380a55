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
def test_decoding_the_ids_of_a_text_gives_the_text(text):
    encodable = text.encode("utf-8", errors="ignore").decode()  # lone surrogates have no bytes
    ids = KEPT.encode(encodable)
    assert KEPT.decode(ids) == encodable
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids), "special tokens in a text are ordinary text"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_words_are_ordered_disjoint_and_inside_the_text(text):
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


def test_the_tokens_of_a_word_contain_its_text():
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


def test_a_run_ends_at_a_character_of_the_other_kind_of_script():
    mixed = words("T恤 and 3只dogs")
    assert mixed[0] == "T"
    assert mixed[-1] == "dogs"
    assert "and" in mixed
    assert "3" in mixed


def test_a_token_that_crosses_two_words_belongs_to_both():
    inner = tokenizers.Tokenizer.from_str(KEPT.to_json())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["<pad>", "<start>", "<end>"], vocab_size=400, show_progress=False)
    inner.train_from_iterator(["x,y"] * 5, trainer)
    tokenizer = CaptionTokenizer(inner)
    ids = tokenizer.encode("x,y")
    spans = tokenizer.words(ids)
    assert len(spans) == 2
    assert len(ids) == 1, "the trainer was given this text only"
    assert spans[0].tokens == spans[1].tokens == (0,)


def test_offsets_align_lower_cased_tokens_with_the_original_text():
    original = "A Dog İn Straße"
    ids = TRAINED.encode(original)
    offsets = TRAINED.align(original)
    decoded = TRAINED.decode(ids)

    assert ids[:2] == TRAINED.encode("a dog")
    assert len(offsets) == len(decoded)
    assert original[offsets[decoded.index("straße")] :] == "Straße"


def test_a_special_token_spelled_out_in_a_text_is_ordinary_text():
    ids = TRAINED.encode("a <end> b <pad><start>")
    assert not {0, 1, 2} & set(ids)
    assert TRAINED.decode(ids) == "a <end> b <pad><start>"
    assert TRAINED.decode(TRAINED.encode("a\0 <pad> dog")) == "a\0 <pad> dog"


def test_a_tokenizer_survives_json():
    again = CaptionTokenizer.from_json(TRAINED.to_json())
    assert again.encode(MIXED[0] + MIXED[6]) == TRAINED.encode(MIXED[0] + MIXED[6])
    assert again.size == TRAINED.size


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": {}}', "not json"])
def test_a_broken_tokenizer_file_is_a_checkpoint_error(text):
    with pytest.raises(CheckpointError):
        CaptionTokenizer.from_json(text)


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(TextError, match="259"):
        CaptionTokenizer.train(MIXED, 100)
