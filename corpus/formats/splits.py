"""Names of splits: synonyms, and splits in the names of files and folders."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")
_SYNONYMS = {name: name for name in SPLITS} | {
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "restval": "train",
    "training": "train",
    "testing": "test",
}
_SPLIT = re.compile(r"(?<![a-z])(val|valid|validation|dev|test|testing|train|training)(?![a-z])")


def normalize_split(name: str) -> str:
    """Return the standard name of a split: validation, valid and dev are val; restval is train, as in papers."""
    return _SYNONYMS.get(name.strip().lower(), name.strip())


def split_in_name(name: str) -> str:
    """Return the split in the name of a file or folder, "" if it has none: captions_val2017.json is val."""
    match = _SPLIT.search(name.lower())
    return normalize_split(match.group()) if match else ""


def split_from_name(*names: str) -> str:
    """Return the split in the first of the names that has one, train if none has one."""
    return next(filter(None, map(split_in_name, names)), "train")
