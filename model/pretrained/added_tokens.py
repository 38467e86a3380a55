"""Tokens that a source added to its vocabulary, and which tokens are special, from the JSON files beside the vocabulary.

`added_tokens_decoder` of tokenizer_config.json has ids, texts and which are special; older files have the ids in
added_tokens.json and the special ones in special_tokens_map.json. All of them are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from model.checkpoint import parse_json
from model.errors import CheckpointError

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")  # transformers' order
_MORE = ("additional_special_tokens", "extra_special_tokens")


def add_tokens(inner: tokenizers.Tokenizer, folder: Path, vocab_size: int) -> None:
    """Add the tokens of a folder's files to a tokenizer, each with its own id.

    A special token without an id gets the next one, if the head has a row for it (`vocab_size`). Raises CheckpointError for
    ids that leave a gap, or that two tokens share.
    """
    special = special_names(folder)
    for index, text in sorted(_added(folder, special).items()):
        known = inner.token_to_id(text)
        if known is None and index != inner.get_vocab_size():
            raise CheckpointError(
                f"{folder} adds the token {text!r:.80} as id {index}, but its vocabulary ends at {inner.get_vocab_size() - 1}; "
                "copy vocabulary, added_tokens.json and tokenizer_config.json again from one source"
            )
        if known not in (None, index):
            raise CheckpointError(
                f"{folder} adds the token {text!r:.80} as id {index}, which its vocabulary has as {known}; copy its tokenizer "
                "files again from one source"
            )
        is_special = text in special
        token = tokenizers.AddedToken(text, special=is_special, normalized=not is_special)
        (inner.add_special_tokens if is_special else inner.add_tokens)([token])
    for text in special:
        if inner.token_to_id(text) is not None or inner.get_vocab_size() < vocab_size:
            inner.add_special_tokens([text])


def special_names(folder: Path) -> list[str]:
    """Return the special tokens that the files of a folder name, in transformers' order, without repetition."""
    config, roles = optional_json(folder / "tokenizer_config.json"), optional_json(folder / "special_tokens_map.json")
    names = [_text(part[role]) for role in _ROLES for part in (roles, config) if role in part]
    names += [_text(value) for part in (roles, config) for name, value in part.items() if name.endswith("_token")]
    for part in (roles, config):
        for name in _MORE:
            values = part.get(name)
            values = list(values.values()) if isinstance(values, dict) else values
            names += [_text(value) for value in values] if isinstance(values, list) else []
    names += [_text(token) for token in _decoder(config).values() if isinstance(token, dict) and token.get("special")]
    return list(dict.fromkeys(name for name in names if name))


def optional_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, {} if there is no file. Raises CheckpointError that names the file."""
    if not path.exists():
        return {}
    try:
        return parse_json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as text; copy it again from its source") from error


def _added(folder: Path, special: list[str]) -> dict[int, str]:
    """Return the added tokens by id. Raises CheckpointError for an entry that is none."""
    decoder = _decoder(optional_json(folder / "tokenizer_config.json"))
    added: dict[int, str] = {}
    pairs = [(_text(token), index, "tokenizer_config.json") for index, token in decoder.items()]
    pairs += [(text, index, "added_tokens.json") for text, index in optional_json(folder / "added_tokens.json").items()]
    for text, index, file in pairs:
        is_id = isinstance(index, int) or (isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10)
        if not text or not is_id or isinstance(index, bool) or int(index) < 0:
            raise CheckpointError(f"{folder / file} has {text!r:.80} as {index!r:.80}; it must be a token and its id: correct it")
        other = added.setdefault(int(index), text)
        if other != text:
            raise CheckpointError(f"{folder / file} has {text!r:.80} as id {index}, which is {other!r:.80} too; correct one")
    return added


def _decoder(config: dict[str, Any]) -> dict[str, Any]:
    decoder = config.get("added_tokens_decoder")
    return decoder if isinstance(decoder, dict) else {}


def _text(value: Any) -> str:
    """Return the text of a token, which some files put into an object; "" for anything else."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""
