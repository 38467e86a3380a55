"""XLM-RoBERTa's tokenizer from sentencepiece.bpe.model, which TrOCR's small checkpoints have instead of a tokenizer.json.

The file is a protobuf message (ModelProto of sentencepiece_model.proto). Its few fields that matter are read here, without
the protobuf and sentencepiece packages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from model.errors import CheckpointError

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first ids, as in fairseq
_MASK = "<mask>"  # the last id
_FIRST_TYPES = [2, 3, 3]  # the file's own first pieces: unknown, and two control pieces, which the list above replaces
_UNIGRAM = 1  # TrainerSpec.model_type


def sentence_pieces(path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer of a model file. Raises CheckpointError that names it."""
    try:
        pieces, model_type, charsmap = _read_model(path.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path} is not a model of sentencepiece, or is damaged; copy it again from its source") from error
    if model_type != _UNIGRAM:
        raise CheckpointError(
            f"{path} has the model_type {model_type}; supported is {_UNIGRAM}, a unigram model: write a tokenizer.json with "
            "AutoTokenizer.from_pretrained(…).save_pretrained"
        )
    if [kind for _, _, kind in pieces[:3]] != _FIRST_TYPES:
        raise CheckpointError(
            f"{path} does not begin with an unknown piece and two control pieces, as XLM-RoBERTa's does; write a tokenizer.json "
            "with AutoTokenizer.from_pretrained(…).save_pretrained"
        )
    vocab = [*((text, 0.0) for text in _SPECIAL), *((text, score) for text, score, _ in pieces[3:]), (_MASK, 0.0)]
    inner = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=_SPECIAL.index("<unk>"), byte_fallback=False))
    if charsmap:
        inner.normalizer = normalizers.Precompiled(charsmap)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([*_SPECIAL, _MASK])
    return inner


def _read_model(data: bytes) -> tuple[list[tuple[str, float, int]], int, bytes]:
    """Return the pieces (text, score, type), the model type and the normalizer's table. Raises ValueError, IndexError."""
    pieces: list[tuple[str, float, int]] = []
    model_type, charsmap = _UNIGRAM, b""
    for number, value in _fields(data):
        if number == 1:  # SentencePiece: text, score, type
            fields = dict(_fields(_message(value)))
            (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
            pieces.append((_message(fields.get(1)).decode(), score, _integer(fields.get(3, 1))))
        elif number == 2:  # TrainerSpec
            model_type = _integer(dict(_fields(_message(value))).get(3, _UNIGRAM))
        elif number == 3:  # NormalizerSpec
            charsmap = _message(dict(_fields(_message(value))).get(2, b""))
    return pieces, model_type, charsmap


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of a message's fields: an integer, or the bytes of anything else."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, position = _varint(data, position)
        elif not size:
            raise ValueError(f"wire type {kind}")
        if position + size > len(data):
            raise ValueError("the message is truncated")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an integer of 7 bits per byte, and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("an integer of more than 64 bits")


def _message(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field has another type")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("a field has another type")
    return value
