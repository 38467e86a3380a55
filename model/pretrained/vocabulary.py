"""The tokenizer of a source: its tokenizer.json, or the vocabulary files of older libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from model.errors import CheckpointError
from model.pretrained.added_tokens import add_tokens, optional_json, special_names
from model.pretrained.sentencepiece import sentence_pieces
from model.tokenizer import CaptionTokenizer

_USUAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>")  # GPT-2's and RoBERTa's, if no file names them
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BLIP = ("[DEC]", "[ENC]")  # BLIP's additions to BERT's vocabulary: the start of a caption, and a token that captions do not use
_SENTENCE_PIECES = "sentencepiece.bpe.model"
_FILES = "tokenizer.json, vocab.json with merges.txt, vocab.txt, or sentencepiece.bpe.model"


def source_tokenizer(folder: Path, vocab_size: int = 0) -> CaptionTokenizer:
    """Return the tokenizer of a folder. Raises CheckpointError if it has none, or one of an unknown kind.

    `vocab_size` is the number of rows of the head: special tokens that have no id of their own get one below it, as
    transformers gives them one.
    """
    complete, pieces, merges, words = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"))
    try:
        if complete.exists():
            return CaptionTokenizer.from_json(complete.read_text(encoding="utf-8"))
        if pieces.exists() and merges.exists():
            inner = _byte_pairs(folder, pieces, merges)
        elif words.exists():
            inner = _word_pieces(folder, words)
        elif (folder / _SENTENCE_PIECES).exists():
            inner = sentence_pieces(folder / _SENTENCE_PIECES)
        else:
            raise CheckpointError(f"{folder} has no tokenizer; it needs {_FILES}")
        add_tokens(inner, folder, vocab_size)
        return CaptionTokenizer(inner)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{folder}: its tokenizer files cannot be read; copy {_FILES} again from its source") from error


def with_blips_tokens(tokenizer: CaptionTokenizer, start: int) -> CaptionTokenizer:
    """Return BERT's tokenizer with BLIP's two tokens, the first of which is `start`; a tokenizer that has them is not changed.

    The published files contain BERT's vocabulary only: BLIP's code adds the two tokens when it loads.
    """
    return tokenizer.extended(BLIP) if tokenizer.size == start else tokenizer


def _byte_pairs(folder: Path, pieces: Path, merges: Path) -> tokenizers.Tokenizer:
    """Return a byte-level BPE, GPT-2's or RoBERTa's."""
    inner = tokenizers.Tokenizer(models.BPE.from_file(str(pieces), str(merges)))
    add_prefix_space = bool(optional_json(folder / "tokenizer_config.json").get("add_prefix_space", False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    inner.decoder = decoders.ByteLevel()
    vocab = inner.get_vocab()
    inner.add_special_tokens([name for name in _USUAL if name in vocab] if not special_names(folder) else [])
    return inner


def _word_pieces(folder: Path, words: Path) -> tokenizers.Tokenizer:
    """Return BERT's WordPiece, or the Japanese BERT's."""
    inner = tokenizers.Tokenizer(models.WordPiece.from_file(str(words), unk_token="[UNK]"))
    config = optional_json(folder / "tokenizer_config.json")
    if config.get("tokenizer_class") == "BertJapaneseTokenizer":
        _split_japanese(inner, config, folder)
    else:
        inner.normalizer = normalizers.BertNormalizer(lowercase=bool(config.get("do_lower_case", True)))
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
    vocab = inner.get_vocab()
    inner.add_special_tokens([name for name in _BERT if name in vocab])
    return inner


def _split_japanese(inner: tokenizers.Tokenizer, config: dict[str, Any], folder: Path) -> None:
    """Split Japanese into characters, as the sources that are read have been trained (manga-ocr); no dictionary is needed.

    Raises CheckpointError for word pieces, which need MeCab's words.
    """
    kind = config.get("subword_tokenizer_type", "wordpiece")
    if kind != "character":
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'} has the subword_tokenizer_type {kind!r:.40}, whose words are those of a "
            "dictionary; supported is 'character'"
        )
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(tokenizers.Regex("."), "isolated")]
    )
    inner.decoder = decoders.Fuse()  # no spaces between characters (model/tokenizer.py)
