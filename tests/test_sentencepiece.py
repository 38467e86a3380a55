"""XLM-RoBERTa's sentencepiece.bpe.model, as TrOCR's small checkpoints have it: ids and texts equal transformers', or an error."""

from __future__ import annotations

import json
import struct

import pytest
from transformers import XLMRobertaTokenizer

from model import CaptionTokenizer, CheckpointError
from model.pretrained.sentencepiece import sentence_pieces
from model.pretrained.vocabulary import source_tokenizer
from tests.test_foreign_tokenizers import KINDS, MORE

NAME = "sentencepiece.bpe.model"
FIRST = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]  # text, score, type


def field(number, value):
    """Return a field of a protobuf message: an integer, a float or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def model_bytes(pieces, model_type=1):
    """Return a ModelProto as sentencepiece writes it: normal pieces have no type, and other fields come between."""
    message = b""
    for text, score, kind in pieces:
        piece = field(1, text.encode()) + field(2, score) + (field(3, kind) if kind != 1 else b"")
        message += field(1, piece)
    trainer = field(1, b"corpus.txt") + field(3, model_type) + field(4, 250_000) + field(10, 0.9995) + field(40, 0)
    return message + field(2, trainer) + field(3, field(1, b"nmt_nfkc") + field(2, b"") + field(3, 1))


def pieces_of(inner):
    """Return the pieces of a model file whose tokenizer `inner` is."""
    vocab = json.loads(inner.to_str())["model"]["vocab"]
    return FIRST + [(text, score, 1) for text, score in vocab[4:-1]]


def write_model(folder, inner=KINDS["xlm_roberta"]):
    (folder / NAME).write_bytes(model_bytes(pieces_of(inner)))


def test_ids_and_texts_equal_those_of_transformers(tmp_path):
    write_model(tmp_path)
    roles = {"mask_token": {"content": "<mask>", "lstrip": True}, "pad_token": "<pad>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    ours = source_tokenizer(tmp_path)
    vocab = [(text, struct.unpack("<f", struct.pack("<f", score))[0]) for text, score, _ in pieces_of(KINDS["xlm_roberta"])[3:]]
    special = [(text, 0.0) for text in ("<s>", "<pad>", "</s>", "<unk>")]
    theirs = XLMRobertaTokenizer(vocab=[*special, *vocab, ("<mask>", 0.0)])
    assert ours.size == len(theirs)
    assert ours.special_ids == set(theirs.all_special_ids)
    for text in (*MORE, "", "  two  spaces "):
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert CaptionTokenizer.from_json(ours.to_json()).encode("a dog") == ours.encode("a dog")


def test_a_byte_of_padding_in_a_long_message_is_read_to_its_end(tmp_path):
    """Lengths above 127 have several bytes."""
    long = "▁" + "x" * 300
    (tmp_path / NAME).write_bytes(model_bytes([*FIRST, (long, -1.0, 1), ("▁", -2.0, 1)]))
    assert sentence_pieces(tmp_path / NAME).token_to_id(long) == 4


WHOLE = model_bytes([*FIRST, ("▁a", -1.0, 1)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with an unknown piece and two control pieces"),
        (WHOLE[:-3], "is not a model of sentencepiece, or is damaged; copy it again"),
        (WHOLE[:20], "is not a model of sentencepiece"),
        (b"\xff" * 40, "is not a model of sentencepiece"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a model of sentencepiece"),
        (field(1, field(1, b"\xff")), "is not a model of sentencepiece"),
        (field(1, 5), "is not a model of sentencepiece"),
        (field(1, field(1, b"a") + field(2, 3)), "is not a model of sentencepiece"),
        (model_bytes([*FIRST, ("▁a", -1.0, 1)], model_type=2), "has the model_type 2; supported is 1, a unigram model: write a"),
        (model_bytes([("▁a", -1.0, 1), *FIRST]), "does not begin with an unknown piece"),
    ],
)  # fmt: skip
def test_another_or_a_damaged_model_is_an_error_that_names_the_file(content, message, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{NAME} {message}"):
        source_tokenizer(tmp_path)


def test_a_model_with_pieces_for_bytes_is_refused_by_its_name(tmp_path):
    (tmp_path / NAME).write_bytes(model_bytes([*FIRST, ("<0x0A>", 0.0, 6), ("▁a", -1.0, 1)]))
    with pytest.raises(CheckpointError, match="is a Unigram with pieces for bytes"):
        source_tokenizer(tmp_path)
