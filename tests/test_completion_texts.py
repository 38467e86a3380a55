"""Texts that arrive in pieces: what stands between words, and stop sequences."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Caption, GenerationOptions, Word
from service.http.dialects.completions import StopSequences

TEXT = st.text("ab .,", max_size=30)


def pieces_of(caption: Caption) -> str:
    return "".join(word.before + word.text for word in caption.words) + caption.after


@pytest.mark.parametrize("style", ["plain", "sentence"])
@pytest.mark.parametrize("prompt", ["", "two dogs, and"])
def test_the_words_and_what_is_between_them_make_the_caption(tiny_captioner, views, style, prompt):
    options = GenerationOptions(style=style, prompt=prompt, num_return_sequences=3)
    for result in tiny_captioner.caption(views, options):
        for caption in result.captions:
            assert pieces_of(caption) == caption.text
            assert caption.num_tokens > 0


def test_the_words_of_a_written_caption_make_it_too(tiny_captioner, views):
    text = "  “Two dogs,” she said — 狗在跑 — and: well-known!  "
    [result] = tiny_captioner.explain(views[:1], [[text]])
    assert pieces_of(result.captions[0]) == text


def test_a_caption_without_words_is_all_after(views):
    assert Caption("…", (), -1.0, "stop").after == "…"


@given(TEXT, st.lists(st.text("ab .", min_size=1, max_size=3), max_size=3), st.lists(st.integers(0, 30), max_size=6))
def test_stop_sequences_cut_the_same_in_pieces_as_whole(text, sequences, cuts):
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in sequences if stop in text]
    expected = min(ends)[1] if ends else len(text)
    stop = StopSequences(sequences)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    sent = [stop.feed(text[start:end]) for start, end in itertools.pairwise(borders)]
    assert text.startswith("".join(sent))  # nothing that would have to be taken back
    sent.append(stop.feed("", is_last=True))
    assert "".join(sent) == text[:expected]
    assert stop.is_stopped == any(sequence in text for sequence in sequences)
    assert StopSequences(sequences).feed(text, is_last=True) == text[:expected]


@given(
    st.lists(st.sampled_from(["a", "dog", "runs", "ab"]), min_size=1, max_size=6),
    st.lists(st.text("abdo ", min_size=1, max_size=3)),
)
def test_the_words_of_a_stream_are_those_of_the_whole_text(texts, sequences):
    words, end = [], 0
    for text in texts:
        start = end + bool(words)
        words.append(Word(text, start, start + len(text), -1.0, None, None, None, before=" " if words else ""))
        end = start + len(text)
    caption = Caption(" ".join(texts) + ".", tuple(words), -1.0, "stop")
    stop, parts, sent = StopSequences(sequences), [], []
    for word in words:
        text, own = stop.feed_word(word)
        parts.append(text)
        sent += own
        assert all(one.end <= len("".join(parts)) or stop.is_stopped for one in sent)
    text, own = stop.finish(caption)
    assert ("".join([*parts, text]), sent + own) == StopSequences(sequences).cut(caption)


def test_a_stopped_caption_has_the_words_before_the_stop():
    words = [Word("a", 0, 1, -0.1, None, None, None), Word("dog", 2, 5, -0.2, None, None, None, before=" "),
             Word("runs", 6, 10, -0.3, None, None, None, before=" ")]  # fmt: skip
    text, kept = StopSequences(" r").cut(Caption("a dog runs", tuple(words), -0.6, "stop"))
    assert (text, [word.text for word in kept]) == ("a dog", ["a", "dog"])
    assert StopSequences(None).cut(Caption("a dog runs", tuple(words), -0.6, "stop")) == ("a dog runs", words)
