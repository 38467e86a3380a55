"""The tokenizer of a source: its tokenizer.json, or the older files that hold a vocabulary alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from model.errors import CheckpointError
from model.tokenizer import CaptionTokenizer

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BLIP = ("[DEC]", "[ENC]")  # what BLIP adds to BERT's vocabulary: where a caption starts, and what captions never hold
_FILES = "tokenizer.json, vocab.json with merges.txt, or vocab.txt"


def source_tokenizer(folder: Path) -> CaptionTokenizer:
    """Return the tokenizer that lies in a folder. Raises CheckpointError where there is none that is known."""
    whole, pieces, merges, words = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"))
    try:
        if whole.exists():
            return CaptionTokenizer.from_json(whole.read_text(encoding="utf-8"))
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
    """Return BERT's tokenizer with BLIP's two tokens, whose first is the start; where it has them it stays as it is.

    The published files hold BERT's alone: BLIP's code adds the two when it loads.
    """
    return tokenizer.extended(BLIP) if tokenizer.size == start else tokenizer


def _byte_pairs(folder: Path, pieces: Path, merges: Path) -> tokenizers.Tokenizer:
    """GPT-2's and RoBERTa's: byte-level BPE."""
    inner = tokenizers.Tokenizer(models.BPE.from_file(str(pieces), str(merges)))
    spaced = bool(_told(folder / "tokenizer_config.json").get("add_prefix_space", False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    inner.decoder = decoders.ByteLevel()
    known = inner.get_vocab()
    inner.add_special_tokens([name for name in _special_names(folder) if name in known])
    return inner


def _word_pieces(folder: Path, words: Path) -> tokenizers.Tokenizer:
    """BERT's."""
    inner = tokenizers.Tokenizer(models.WordPiece.from_file(str(words), unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=bool(_told(folder / "tokenizer_config.json").get("do_lower_case", True))
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    known = inner.get_vocab()
    inner.add_special_tokens([name for name in _BERT if name in known])
    return inner


def _special_names(folder: Path) -> list[str]:
    """Return the special tokens that the files beside a vocabulary name, else GPT-2's and RoBERTa's own."""
    told = _told(folder / "special_tokens_map.json") or _told(folder / "tokenizer_config.json")
    found = [
        value.get("content") if isinstance(value, dict) else value for name, value in told.items() if name.endswith("_token")
    ]
    return [name for name in found if isinstance(name, str)] or ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]


def _told(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if isinstance(found, dict) else {}
