"""The tokenizer of a source: its tokenizer.json, or the vocabulary files of older libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from model.errors import CheckpointError
from model.tokenizer import CaptionTokenizer

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BLIP = ("[DEC]", "[ENC]")  # BLIP's additions to BERT's vocabulary: the start of a caption, and a token that captions do not use
_FILES = "tokenizer.json, vocab.json with merges.txt, or vocab.txt"


def source_tokenizer(folder: Path) -> CaptionTokenizer:
    """Return the tokenizer of a folder. Raises CheckpointError if it has none, or one of an unknown kind."""
    complete, pieces, merges, words = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"))
    try:
        if complete.exists():
            return CaptionTokenizer.from_json(complete.read_text(encoding="utf-8"))
        if pieces.exists() and merges.exists():
            return CaptionTokenizer(_byte_pairs(folder, pieces, merges))
        if words.exists():
            return CaptionTokenizer(_word_pieces(folder, words))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({error}); copy it again from its source") from error
    raise CheckpointError(f"{folder} has no tokenizer; it needs {_FILES}")


def with_blips_tokens(tokenizer: CaptionTokenizer, start: int) -> CaptionTokenizer:
    """Return BERT's tokenizer with BLIP's two tokens, the first of which is `start`; a tokenizer that has them is not changed.

    The published files contain BERT's vocabulary only: BLIP's code adds the two tokens when it loads.
    """
    return tokenizer.extended(BLIP) if tokenizer.size == start else tokenizer


def _byte_pairs(folder: Path, pieces: Path, merges: Path) -> tokenizers.Tokenizer:
    """Return a byte-level BPE, GPT-2's or RoBERTa's."""
    inner = tokenizers.Tokenizer(models.BPE.from_file(str(pieces), str(merges)))
    add_prefix_space = bool(_optional_json(folder / "tokenizer_config.json").get("add_prefix_space", False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    inner.decoder = decoders.ByteLevel()
    vocab = inner.get_vocab()
    inner.add_special_tokens([name for name in _special_names(folder) if name in vocab])
    return inner


def _word_pieces(folder: Path, words: Path) -> tokenizers.Tokenizer:
    """Return BERT's WordPiece."""
    inner = tokenizers.Tokenizer(models.WordPiece.from_file(str(words), unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=bool(_optional_json(folder / "tokenizer_config.json").get("do_lower_case", True))
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    vocab = inner.get_vocab()
    inner.add_special_tokens([name for name in _BERT if name in vocab])
    return inner


def _special_names(folder: Path) -> list[str]:
    """Return the special tokens that the files next to a vocabulary name, else those of GPT-2 and RoBERTa."""
    roles = _optional_json(folder / "special_tokens_map.json") or _optional_json(folder / "tokenizer_config.json")
    names = [
        value.get("content") if isinstance(value, dict) else value for name, value in roles.items() if name.endswith("_token")
    ]
    return [name for name in names if isinstance(name, str)] or ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]


def _optional_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, {} if the file does not exist or contains something else."""
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document if isinstance(document, dict) else {}
