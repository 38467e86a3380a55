"""The style of captions (model/style.py): sentences, and the offsets of their words."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus import open_dataset
from model import Captioner, CaptionNetwork, GenerationOptions
from model.style import as_sentence, moved, plain_form
from training import TrainConfig, build_network


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ("a dog runs", "A dog runs."),
        ("a dog , a cat and a bird", "A dog, a cat and a bird."),
        ("is this a dog ?", "Is this a dog?"),
        ("élan", "Élan."),
        ("穿着连衣裙的小女孩", "穿着连衣裙的小女孩。"),
        ("طفلة تتسلق الدرج", "طفلة تتسلق الدرج."),
        ("एक बच्चा चढ़ रहा है", "एक बच्चा चढ़ रहा है।"),
        ('a sign reads " stop . "', 'A sign reads " stop. "'),
        ("", ""),
        ("ß is a letter", "ß is a letter."),
    ],
)
def test_a_caption_becomes_a_sentence(plain, sentence):
    assert as_sentence(plain)[0] == sentence


def test_a_caption_that_is_cut_off_has_no_full_stop():
    assert as_sentence("a man in a", is_finished=False)[0] == "A man in a"


def test_what_a_person_wrote_is_kept():
    assert as_sentence("my dog , Rex and a cat , too", start=13)[0] == "my dog , Rex and a cat, too."
    assert as_sentence("my dog", start=6)[0] == "my dog"


@given(st.text(alphabet="ab ,.?é猫", max_size=30), st.integers(0, 30), st.booleans())
def test_every_letter_is_where_its_offset_says(text, start, is_finished):
    start = min(start, len(text))
    sentence, offsets = as_sentence(text, start=start, is_finished=is_finished)
    assert len(offsets) == len(text) + 1
    assert offsets == sorted(offsets)
    assert sentence[: offsets[start]] == text[:start]
    for index, letter in enumerate(text):
        if letter != " ":
            assert sentence[offsets[index]].lower() == letter.lower()
            assert moved(offsets, index, index + 1) == (offsets[index], offsets[index] + 1)


def caption_of(captioner, view, style):
    options = GenerationOptions(strategy="greedy", max_words=8, style=style)
    return captioner.caption([view], options=options)[0].captions[0]


def test_words_of_a_styled_caption_are_where_they_say(tiny_captioner, views):
    for style in ("plain", "sentence"):
        caption = caption_of(tiny_captioner, views[0], style)
        assert caption.words
        assert [caption.text[word.start : word.end] for word in caption.words] == [word.text for word in caption.words]


def test_style_changes_no_number(tiny_captioner, views):
    plain, sentence = (caption_of(tiny_captioner, views[0], style) for style in ("plain", "sentence"))
    assert plain.log_probability == sentence.log_probability
    assert [word.log_probability for word in plain.words] == [word.log_probability for word in sentence.words]
    assert sentence.text == as_sentence(plain.text, is_finished=sentence.finish_reason == "stop")[0]


def test_an_explained_caption_stays_as_it_was_written(tiny_captioner, views):
    assert tiny_captioner.explain([views[0]], [["a Dog , here"]])[0].captions[0].text == "a Dog , here"


def test_new_networks_write_sentences_and_converted_ones_what_their_source_does():
    config = TrainConfig(data=("scenes:4",), run="unused", stem="", hidden_size=24, num_heads=2, vocab_size=300)
    network, _ = build_network(config, [open_dataset("scenes:4")])
    assert network.config.generation.style == "sentence"
    assert GenerationOptions().style == "plain"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A dog, a cat.", "A dog , a cat"),
        ("A dog , a cat", "A dog , a cat"),
        ("A dog", "A dog"),
        ("Is it 3.5 m?", "Is it 3.5 m?"),
        ("a dog.", "a dog"),
        ("A dog ,a cat.", "A dog ,a cat."),
        ("一只狗。", "一只狗"),
        (".", "."),
        ("", ""),
    ],
)
def test_a_sentence_has_the_plain_form_that_it_was_made_from(text, plain):
    own, offsets = plain_form(text, "sentence")
    assert own == plain
    assert len(offsets) == len(own) + 1
    assert offsets == sorted(offsets)
    assert offsets[-1] == len(text)
    for index, character in enumerate(own):
        assert character in (text[offsets[index]], " ")
    assert plain_form(text, "plain") == (text, list(range(len(text) + 1)))


@given(st.text(st.sampled_from("ab ,.Z狗3"), max_size=12))
def test_the_plain_form_of_a_sentence_makes_that_sentence(text):
    sentence, _ = as_sentence(" ".join(text.split()))
    own, _ = plain_form(sentence, "sentence")
    assert own == sentence or as_sentence(own)[0] == sentence


def test_a_sentence_is_explained_as_the_caption_that_it_was_made_from(tiny_captioner, views):
    network = tiny_captioner.runtime
    config = dataclasses.replace(network.config, generation=GenerationOptions(style="sentence"))
    captioner = Captioner(CaptionNetwork(config).eval(), tiny_captioner.tokenizer)
    captioner.runtime.load_state_dict(network.state_dict())
    text = "A red square, a blue ring and a star."
    texts = [text, "a red square , a blue ring and a star"]
    sentence, plain = captioner.explain([views[0]], [texts])[0].captions
    assert [sentence.text, plain.text] == texts
    assert sentence.log_probability == pytest.approx(plain.log_probability, abs=1e-4)
    for own, other in zip(sentence.words, plain.words, strict=True):
        assert own.text.lower() == other.text
        assert text[own.start : own.end] == own.text
        assert own.log_probability == pytest.approx(other.log_probability, abs=1e-4)
    (other,) = tiny_captioner.explain([views[0]], [[text]])[0].captions
    assert other.log_probability != pytest.approx(sentence.log_probability, abs=1e-2), "the style plain reads every mark"


def test_spaces_before_the_first_letter_do_not_take_its_capital():
    """A phrase after another one begins with a space, which is removed later."""
    sentence, offsets = as_sentence("  the hat")
    assert sentence == "  The hat."
    assert offsets == list(range(10))
    assert as_sentence(" the hat", start=1)[0] == " the hat.", "what a person wrote stays as written"
