"""GPT-2's, RoBERTa's and BERT's tokenizers: ids and texts equal those of transformers, and words are inside the text."""

from __future__ import annotations

import json
import random

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from model import CaptionTokenizer, CheckpointError
from model.pretrained.vocabulary import source_tokenizer
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


def unigram():
    """Return XLM-RoBERTa's kind: its special tokens, then the pieces with their scores, then the mask."""
    trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
    split = [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace()]
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(split)
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=220, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator(MORE * 3, trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"][1:]
    vocab = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")] + [(text, score) for text, score in pieces]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram([*vocab, ("<mask>", 0.0)], unk_id=3, byte_fallback=False))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(split)
    inner.decoder = tokenizers.decoders.Metaspace()
    inner.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return inner


KINDS = {
    "gpt2": bpe(["<|endoftext|>"]),
    "roberta": bpe(["<s>", "<pad>", "</s>", "<unk>"]),
    "bert": wordpiece(),
    "xlm_roberta": unigram(),
    "bart": bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
}


@pytest.fixture(params=KINDS)
def both(request):
    inner = KINDS[request.param]
    ours = CaptionTokenizer.from_json(inner.to_str())
    return ours, PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)


def test_texts_equal_those_of_batch_decode(both):
    ours, theirs = both
    rng = random.Random(0)
    rows = [[rng.randrange(ours.size) for _ in range(rng.randint(0, 12))] for _ in range(1_000)]
    expected = theirs.batch_decode(rows, skip_special_tokens=True)
    # The library shows bytes that make no character as U+FFFD; here they are omitted.
    pairs = [
        (ours.decode(row), text) for row, text in zip(rows, expected, strict=True) if "\N{REPLACEMENT CHARACTER}" not in text
    ]
    assert len(pairs) > 200
    assert all(one == other for one, other in pairs)


def test_ids_equal_those_of_the_peer(both):
    ours, theirs = both
    for text in (*MORE, "an image of", "", " two  spaces "):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_a_special_token_spelled_out_in_a_text_is_ordinary_text(both):
    ours, _ = both
    for index in ours.special_ids:
        text = f"a {ours._special[index]} dog"
        assert index not in ours.encode(text) or ours._special[index] in ("[UNK]", "<unk>")


def test_words_and_offsets_are_inside_the_text(both):
    ours, _ = both
    for text in ("A brown dog, isn't it?", "two well-known dogs - and a ball", "  A  girl climbs  "):
        ids = ours.encode(text)
        decoded, offsets = ours.decode(ids), ours.align(text)
        assert len(offsets) == len(decoded)
        assert all(decoded[at].lower() == text[offset].lower() or decoded[at] == " " for at, offset in enumerate(offsets))
        words = [decoded[span.start : span.end] for span in ours.words(ids)]
        # BERT's decoder adds spaces around a hyphen, which separates two words.
        expected = [word.strip(",?") for word in decoded.split() if word.strip(",?'-")]
        assert words == expected or "isn" in decoded
        assert all(set(span.tokens) <= set(range(len(ids))) and span.tokens for span in ours.words(ids))


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(CheckpointError, match="the tokenizer is a WordLevel; supported are byte-level BPE, WordPiece and"):
        CaptionTokenizer.from_json(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).to_str())
    plain = tokenizers.Tokenizer(tokenizers.models.BPE({"狗": 0}, []))
    with pytest.raises(CheckpointError, match="'狗' is not made of bytes"):
        CaptionTokenizer.from_json(plain.to_str())


def test_japanese_characters_have_ids_of_their_own_and_no_spaces_between_them(tmp_path):
    """manga-ocr's tokenizer: characters of NFKC text, of which a character that the vocabulary lacks is unknown."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"こんにちは、世界!12ab", "##ん"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertJapaneseTokenizer", "subword_tokenizer_type": "character", "word_tokenizer_type": "mecab"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = source_tokenizer(tmp_path, len(pieces))
    assert [pieces[index] for index in ours.encode("こんにちは、 世界!")] == list("こんにちは、世界!")
    assert [pieces[index] for index in ours.encode("\uff11\uff12")] == ["1", "2"], "full width, by NFKC"
    assert ours.encode("犬") == [1]
    ids = ours.encode("こんにちは、世界!")
    assert ours.decode(ids) == "こんにちは、世界!"
    assert [ours.decode(ids)[span.start : span.end] for span in ours.words(ids)] == list("こんにちは世界")
    assert ours.decode([pieces.index("a"), pieces.index("b"), pieces.index("世")]) == "a b世", "words of letters keep theirs"
    again = CaptionTokenizer.from_json(ours.to_json())
    assert again.decode(ids) == ours.decode(ids)
    config["subword_tokenizer_type"] = "wordpiece"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the subword_tokenizer_type 'wordpiece', whose words are those of a"):
        source_tokenizer(tmp_path, len(pieces))


def test_a_wordpiece_without_spaces_joins_characters_and_nothing_else():
    plain = CaptionTokenizer.from_json(KINDS["bert"].to_str())
    joined = plain.without_spaces()
    ids = plain.encode("一只狗 a brown dog")
    assert plain.decode(ids) == "一 只 狗 a brown dog"
    assert joined.decode(ids) == "一只狗a brown dog"
