"""Tar shards of pictures beside JSON-lines files of captions, one a language: `captions.<language>.jsonl`.

A line is {"image", "captions"[, "split" or "coco_split"][, "boxes": [[x0, y0, x1, y1, class], …]]}; `image` is the name
of a member of one of the shards, without its ending.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, NamedBox
from model import Box


def read_shards(captions: Path, shards: list[Path], *, language: str = "en", need_captions: bool = True) -> list[Example]:
    """Read the pictures of `shards` that `captions` has a line for. Raises DataError that names file and line."""
    members = _members(shards)
    examples = []
    for number, line in _lines(captions):
        where = f"{captions}, line {number}"
        try:
            record: dict[str, Any] = json.loads(line)
            image_id = str(record["image"])
            references = _captions(record.get("captions", []))
            objects = tuple(NamedBox(str(row[4]), Box(*map(float, row[:4]))) for row in record.get("boxes", ()))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"{where}: {error!r}; a line is {{'image', 'captions', …}}, boxes [x0, y0, x1, y1, class]") from error
        if need_captions and not references:
            continue
        if image_id not in members:
            raise DataError(f"{where}: {image_id!r} is in none of {len(shards)} shards; bring the shard that holds it")
        split = str(record.get("split") or record.get("coco_split") or "train")
        examples.append(Example(members[image_id], references, split, image_id, language, objects))
    return examples


def _members(shards: list[Path]) -> dict[str, bytes]:
    """Return the bytes of every member by its name without the ending."""
    members: dict[str, bytes] = {}
    for path in shards:
        try:
            with tarfile.open(path) as archive:
                for entry in archive:
                    file = archive.extractfile(entry) if entry.isfile() else None
                    if file is not None:
                        members[Path(entry.name).stem] = file.read()
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path} cannot be read as a tar shard ({error}); copy it again") from error
    return members


def _captions(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"captions is {found!r}; it must be a list of texts")
    return tuple(text.strip() for text in found)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not empty, with their numbers; only \\n ends a line of JSON lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); it must be JSON lines in UTF-8") from error
