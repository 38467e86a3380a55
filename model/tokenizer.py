"""Text to ids and back, and which tokens form which word.

Our own tokenizer is byte-level BPE (the `tokenizers` library; Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019):
every text has ids. Converted checkpoints have GPT-2's or RoBERTa's, which are of the same type, BERT's WordPiece
(Schuster and Nakajima 2012), or XLM-RoBERTa's Unigram (Kudo 2018). Words are as docs/service.md defines them: maximal runs
of letters, marks, digits and the apostrophes or hyphens inside them; in scripts written without spaces, the shortest group
of tokens whose bytes end on a code point.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import tokenizers

from model.errors import CheckpointError, TextError

PAD, START, END = "<pad>", "<start>", "<end>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2  # the trainer gives special tokens their ids in this order

_SUPPORTED = "byte-level BPE, WordPiece and Unigram"
_SPACE = "▁"  # a space in Unigram's pieces
_UNSPACED_MARKS = (b".", b"?", b"!", b",", b"n't", b"'m", b"'s", b"'ve", b"'re")

_JOINERS = "'’-‐‑"  # apostrophes and hyphens: part of a word only between its characters
_SPACELESS = (  # prefixes of Unicode names of scripts that are written without spaces
    "CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A word of a text: text[start:end], and the indices of the tokens that touch it."""

    start: int
    end: int
    tokens: tuple[int, ...]


class CaptionTokenizer:
    """A byte-level BPE, a WordPiece or a Unigram, and its special ids, which stand for no text."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self._special = {index: token.content for index, token in inner.get_added_tokens_decoder().items() if token.special}
        self._is_wordpiece = isinstance(inner.model, tokenizers.models.WordPiece)
        self._is_unigram = isinstance(inner.model, tokenizers.models.Unigram)
        self._joins_characters = self._is_wordpiece and isinstance(inner.decoder, tokenizers.decoders.Fuse)
        if not self._is_wordpiece and not self._is_unigram and not isinstance(inner.model, tokenizers.models.BPE):
            raise CheckpointError(f"the tokenizer is a {type(inner.model).__name__}; supported are {_SUPPORTED}")
        if self._is_unigram and inner.token_to_id("<0x0A>") is not None:
            raise CheckpointError(f"the tokenizer is a Unigram with pieces for bytes; supported are {_SUPPORTED} without them")
        pieces = sorted(inner.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
        if [index for _, index in pieces] != list(range(len(pieces))):
            raise CheckpointError("the tokenizer's ids are not 0, 1, 2, …; use the tokenizer.json saved with the checkpoint")
        added = inner.get_added_tokens_decoder()
        self._bytes = [b"" if index in self._special else self._bytes_of(piece, index in added) for piece, index in pieces]

    @property
    def is_wordpiece(self) -> bool:
        return self._is_wordpiece

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text."""
        return frozenset(self._special)

    def id_of(self, token: str) -> int | None:
        """Return the id of a piece or special token, None where there is none."""
        index: int | None = self._inner.token_to_id(token)
        return index

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, *, lowercase: bool = True) -> CaptionTokenizer:
        """Learn at most `vocab_size` tokens from captions, special tokens and the 256 bytes included.

        With `lowercase` every text is lower-cased before it is encoded.
        """
        if vocab_size < 256 + 3:
            raise TextError(f"vocab_size is {vocab_size}; it must hold 256 bytes and 3 special tokens: at least 259")
        inner = tokenizers.Tokenizer(tokenizers.models.BPE())
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        if lowercase:
            inner.normalizer = tokenizers.normalizers.Lowercase()
        inner.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, START, END],
            initial_alphabet=sorted(_byte_alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(captions, trainer)
        return cls(inner)

    @classmethod
    def from_json(cls, text: str) -> CaptionTokenizer:
        """Read what `to_json` wrote. Raises CheckpointError for anything else."""
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError("tokenizer.json cannot be read; it is damaged or of another program, copy it again") from error
        return cls(inner)

    def extended(self, special: Sequence[str]) -> CaptionTokenizer:
        """Return this tokenizer with more special tokens after its own."""
        inner = tokenizers.Tokenizer.from_str(self.to_json())
        inner.add_special_tokens(list(special))
        return CaptionTokenizer(inner)

    def without_spaces(self) -> CaptionTokenizer:
        """Return this tokenizer, a WordPiece, without the spaces that it writes between characters of scripts that have none."""
        inner = tokenizers.Tokenizer.from_str(self.to_json())
        inner.decoder = tokenizers.decoders.Fuse()
        return CaptionTokenizer(inner)

    def to_json(self) -> str:
        return self._inner.to_str(pretty=False)

    @property
    def size(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end. Special tokens written in the text are ordinary text."""
        return [index for part in self._without_special(text) for index in self._inner.encode(part, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; special tokens give nothing, bytes that make no code point are dropped."""
        return b"".join(self._parts(ids)).decode("utf-8", errors="ignore")

    def align(self, text: str) -> list[int]:
        """Return, for every code point of `decode(encode(text))`, its offset in `text`.

        Lower case can be longer than the text; WordPiece and Unigram also remove spaces, or add some.
        """
        if self._is_wordpiece or self._is_unigram:
            encoded = self._inner.encode(text, add_special_tokens=False)
            offsets: list[int] = []
            for part, (first_offset, end) in zip(self._parts(encoded.ids), encoded.offsets, strict=True):
                letters = part.decode()
                is_added = letters.startswith(" ") and not text[first_offset : first_offset + 1].isspace()
                first = first_offset - is_added  # a space added before a word belongs to its first letter
                offsets += [min(max(first_offset, first + index), end - 1) for index in range(len(letters))]
            return offsets
        if self._inner.normalizer is None:
            return list(range(len(text)))
        return [offset for offset, character in enumerate(text) for _ in character.lower()]

    def words(self, ids: Sequence[int]) -> list[WordSpan]:
        """Return the words of `decode(ids)`, in order, with the tokens that touch each; punctuation belongs to none.

        A token whose bytes cross two words belongs to both.
        """
        text, touched = self._characters(ids)
        spans: list[tuple[int, int]] = []
        for start, end, spaceless in _runs(text):
            if not spaceless:
                spans.append((start, end))
                continue
            word_start = start
            for index in range(start, end):
                token_ends_here = touched[index][1] != (touched[index + 1][0] if index + 1 < len(touched) else -1)
                if token_ends_here or index == end - 1:
                    spans.append((word_start, index + 1))
                    word_start = index + 1
        return [WordSpan(start, end, _tokens_of(touched[start:end])) for start, end in spans]

    def count_words(self, ids: Sequence[int]) -> int:
        """Return the number of words that `ids` have started."""
        return len(self.words(ids))

    @functools.cached_property
    def max_words_per_token(self) -> int:
        """Return how many words one token can start at most: with this bound short rows need no counting."""
        return max(1, *(len(self.words([index])) for index in range(self.size)))

    def _parts(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of text that each token adds."""
        if not self._is_wordpiece and not self._is_unigram:
            return [self._bytes[index] for index in ids]
        parts: list[bytes] = []
        is_first = True
        for index in ids:
            piece = self._bytes[index]
            if self._is_unigram:  # like the library's decoder: no space before the first word
                piece = piece.replace(b" ", b"") if is_first else piece
            elif piece and not is_first:  # like the library's decoder: spaces between words, none before these marks
                is_joined = piece in _UNSPACED_MARKS or (self._joins_characters and _are_spaceless(parts[-1], piece))
                piece = piece[2:] if piece.startswith(b"##") else piece if is_joined else b" " + piece
            is_first = is_first and index in self._special
            parts.append(piece)
        return parts

    def _bytes_of(self, piece: str, is_added: bool) -> bytes:
        if self._is_wordpiece:
            return piece.encode()
        return piece.replace(_SPACE, " ").encode() if self._is_unigram else _bytes_of(piece, is_added=is_added)

    def _without_special(self, text: str) -> list[str]:
        """Split a text inside every special token that it spells out, so that none is encoded as the real one."""
        spelled = "|".join(re.escape(token) for token in self._special.values() if token in text)
        if not spelled:
            return [text]
        cuts = [0, *(match.start() + 1 for match in re.finditer(spelled, text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts)]

    def _characters(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and for each code point the first and last index of the tokens that hold its bytes."""
        parts = self._parts(ids)
        owner = [index for index, part in enumerate(parts) for _ in part]
        data = b"".join(parts)
        text: list[str] = []
        touched: list[tuple[int, int]] = []
        position = 0
        while position < len(data):
            size = _utf8_length(data[position])
            try:
                character = data[position : position + max(size, 1)].decode("utf-8")
            except UnicodeDecodeError:
                position += 1  # a stray byte: `decode` drops it too
                continue
            text.append(character)
            touched.append((owner[position], owner[position + size - 1]))
            position += size
        return "".join(text), touched


def is_word_character(character: str) -> bool:
    """Return whether a code point is a letter, a mark or a digit."""
    return unicodedata.category(character)[0] in "LMN"


def is_spaceless(character: str) -> bool:
    """Return whether a code point belongs to a script that is written without spaces."""
    return ord(character) > 0x0E00 and unicodedata.name(character, "").startswith(_SPACELESS)


def _runs(text: str) -> list[tuple[int, int, bool]]:
    """Return (start, end, spaceless) of every maximal run of word characters of one kind."""
    runs: list[tuple[int, int, bool]] = []
    start, kind = -1, False
    for index, character in enumerate(text):
        if is_word_character(character):
            spaceless = is_spaceless(character)
            if start >= 0 and spaceless != kind and unicodedata.category(character)[0] == "M":
                spaceless = kind  # a mark belongs to the character before it
            if start >= 0 and spaceless != kind:
                runs.append((start, index, kind))
                start = -1
            if start < 0:
                start, kind = index, spaceless
        elif start >= 0 and not _joins(text, index, kind):
            runs.append((start, index, kind))
            start = -1
    if start >= 0:
        runs.append((start, len(text), kind))
    return runs


def _joins(text: str, index: int, spaceless: bool) -> bool:
    """Return whether the character at `index` is an apostrophe or hyphen inside a word of a script with spaces."""
    if spaceless or text[index] not in _JOINERS or index + 1 >= len(text):
        return False
    following = text[index + 1]
    return is_word_character(text[index - 1]) and is_word_character(following) and not is_spaceless(following)


def _tokens_of(touched: list[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted({token for first, last in touched for token in range(first, last + 1)}))


def _are_spaceless(before: bytes, piece: bytes) -> bool:
    """Return whether no space belongs between two pieces: a character there is of a script without spaces, or its mark."""
    characters = (before.decode("utf-8", "ignore")[-1:], piece.decode("utf-8", "ignore")[:1])
    return any(
        character and (is_spaceless(character) or (ord(character) > 0x2FFF and not is_word_character(character)))
        for character in characters
    )


def _utf8_length(lead: int) -> int:
    """Return the number of bytes of a code point from its first byte; 0 if no code point starts with it."""
    if lead < 0x80:
        return 1
    return 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 0


def _bytes_of(piece: str, *, is_added: bool = False) -> bytes:
    """Return the bytes of a piece. An added token is text that need not be spelled in the bytes' alphabet."""
    alphabet = _byte_alphabet()
    try:
        return bytes(alphabet[symbol] for symbol in piece)
    except KeyError as error:
        if is_added:
            return piece.encode()
        raise CheckpointError(f"the tokenizer's piece {piece!r} is not made of bytes; supported are {_SUPPORTED}") from error


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's printable symbol of each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {chr(value): value for value in printable}
    others = [value for value in range(256) if value not in printable]
    return symbols | {chr(256 + index): value for index, value in enumerate(others)}
