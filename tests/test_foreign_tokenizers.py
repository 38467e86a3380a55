"""GPT-2's, RoBERTa's and BERT's tokenizers: text out equal to transformers' batch_decode, words inside it."""

from __future__ import annotations

import random

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from model import CaptionTokenizer, CheckpointError
from tests.conftest import SENTENCES

MORE = [*SENTENCES, "It's a dog, isn't it?", "two well-known cafés: né!", "一只狗", "don't we've he'd"]


def bpe(specials):
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 400, "initial_alphabet": alphabet, "special_tokens": specials}
    trainer = tokenizers.trainers.BpeTrainer(**options, show_progress=False)
    inner.train_from_iterator(MORE * 3, trainer)
    return inner


def wordpiece():
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.decoder = tokenizers.decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=220, special_tokens=specials, show_progress=False)
    inner.train_from_iterator(MORE * 3, trainer)
    inner.add_tokens(["n't", "'s", "'ve"])
    inner.add_special_tokens(["[DEC]", "[ENC]"])
    return inner


KINDS = {"gpt2": bpe(["<|endoftext|>"]), "roberta": bpe(["<s>", "<pad>", "</s>", "<unk>"]), "bert": wordpiece()}


@pytest.fixture(params=KINDS)
def both(request):
    inner = KINDS[request.param]
    ours = CaptionTokenizer.from_json(inner.to_str())
    return ours, PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)


def test_texts_are_those_of_batch_decode(both):
    ours, theirs = both
    dice = random.Random(0)
    rows = [[dice.randrange(ours.size) for _ in range(dice.randint(0, 12))] for _ in range(1_000)]
    wanted = theirs.batch_decode(rows, skip_special_tokens=True)
    # The library shows bytes that make no character as U+FFFD; here they are left out.
    pairs = [(ours.decode(row), text) for row, text in zip(rows, wanted, strict=True) if "\N{REPLACEMENT CHARACTER}" not in text]
    assert len(pairs) > 200
    assert all(one == other for one, other in pairs)


def test_ids_are_those_of_the_peer(both):
    ours, theirs = both
    for text in (*MORE, "a picture of", "", " two  spaces "):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_special_tokens_that_a_text_spells_out_are_text(both):
    ours, _ = both
    for index in ours.special_ids:
        spelled = f"a {ours._special[index]} dog"
        assert index not in ours.encode(spelled) or ours._special[index] == "[UNK]"


def test_words_and_places_lie_in_the_text(both):
    ours, _ = both
    for text in ("A brown dog, isn't it?", "two well-known dogs - and a ball", "  A  girl climbs  "):
        ids = ours.encode(text)
        shown, places = ours.decode(ids), ours.align(text)
        assert len(places) == len(shown)
        assert all(shown[at].lower() == text[place].lower() or shown[at] == " " for at, place in enumerate(places))
        words = [shown[span.start : span.end] for span in ours.words(ids)]
        # BERT writes spaces around a hyphen: its words are those of what it writes.
        wanted = [word.strip(",?") for word in shown.split() if word.strip(",?'-")]
        assert words == wanted or "isn" in shown
        assert all(set(span.tokens) <= set(range(len(ids))) and span.tokens for span in ours.words(ids))


def test_other_kinds_are_refused():
    with pytest.raises(CheckpointError, match="the tokenizer is a WordLevel; known are byte-level BPE and WordPiece"):
        CaptionTokenizer.from_json(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).to_str())
    plain = tokenizers.Tokenizer(tokenizers.models.BPE({"狗": 0}, []))
    with pytest.raises(CheckpointError, match="'狗' is not of bytes"):
        CaptionTokenizer.from_json(plain.to_str())
