"""Names of splits: synonyms, and splits in the names of files and folders."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")
_SYNONYMS = {"validation": "val", "valid": "val", "dev": "val", "restval": "train", "training": "train", "testing": "test"}


def normalize_split(name: str) -> str:
    """Return the standard name of a split: validation, valid and dev are val; restval is train, as in papers."""
    return _SYNONYMS.get(name.strip().lower(), name.strip())


def split_from_name(*names: str) -> str:
    """Return the split in the name of a file or folder: captions_val2017.json is val.

    The first of the names with a split counts. Returns train if none has one.
    """
    for name in names:
        match = re.search(r"(?<![a-z])(val|valid|validation|dev|test|testing|train|training)(?![a-z])", name.lower())
        if match:
            return normalize_split(match.group())
    return "train"
