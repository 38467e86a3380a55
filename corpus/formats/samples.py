"""Webdataset shards: a sample is the members of one key, a picture with .json or .txt; img2dataset's output is this.

The json tells `captions`, `caption` or `text` (else the .txt is the caption), and may tell `image_id`, `split`, `languages`
and `boxes`. Without them the id is shard/key and the split what the shard's name says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys

from corpus.errors import DataError
from corpus.example import Example, Member
from corpus.formats.files import PICTURES, Reading, boxes_of, id_of, split_name, split_of_name, texts_of
from corpus.formats.records import COLUMNS, languages_of
from corpus.formats.shards import ShardWriters, members
from corpus.formats.writing import NewFolder, ending_of, numbered, read_picture_of, record_of

_TEXTS = (".json", ".txt")
_PICTURES = frozenset(ending[1:] for ending in PICTURES)


def read_samples(shards: list[Path], reading: Reading) -> Iterator[Example]:
    """Stream the samples of shards in order; nothing is held."""

    def refused(error: Exception) -> bool:
        with reading.faults:
            raise DataError(f"a sample's member occurs twice: {error.args[0]}; keys are unique in a shard") from error
        return True

    for sample in group_by_keys(_files(shards, reading), handler=refused):
        example = None
        with reading.faults:
            example = _example(sample, f"{sample['__url__']}, sample {sample['__key__']!r}")
        if example is not None:
            yield example


def write_samples(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write <split>-000000.tar, …: a picture, a json with all that is told, and the first caption as .txt for other programs."""
    with ExitStack() as stack:
        writers = ShardWriters(folder, stack)
        for number, example in numbered(examples):
            data = read_picture_of(example)
            first = {"txt": example.references[0]} if example.references else {}
            sample = {"__key__": f"{number:09d}", ending_of(example, data)[1:].lower(): data, "json": record_of(example)}
            writers.write(example.split, sample | first)


def _files(shards: list[Path], reading: Reading) -> Iterator[dict[str, Any]]:
    """Yield what webdataset groups: each member's name and content, of pictures the place; {} ends a shard."""
    for path in shards:
        url = str(path)
        for member, content in members(path, reading, _TEXTS):
            yield {"fname": member.name, "data": content if member.name.lower().endswith(_TEXTS) else member, "__url__": url}
        yield {}


def _example(sample: dict[str, Any], where: str) -> Example:
    pictures = [ending for ending in sample if ending in _PICTURES]
    if len(pictures) != 1:
        has = ", ".join(sorted(ending for ending in sample if not ending.startswith("__")))
        hint = "; a key ends at the first dot of a name" if any("." in ending for ending in sample if ending[:2] != "__") else ""
        raise DataError(f"{where} has {len(pictures)} pictures among its members ({has}); it must have one{hint}")
    image = sample[pictures[0]]
    assert isinstance(image, Member)
    record = _record(sample, where)
    told = next((record[name] for name in COLUMNS["caption"] if record.get(name) is not None), None)
    if told is None and "txt" in sample:
        told = _decoded(sample["txt"], where)
    texts = [] if told is None else texts_of(told, where)
    languages = languages_of(record.get("languages") or record.get("language"), len(texts), where)
    shard, split = _told_by(image.shard)
    split = split_name(str(record["split"])) if record.get("split") else split
    image_id = id_of(record.get("image_id"), where) or f"{shard}/{sample['__key__']}"
    return Example(
        image,
        tuple(texts),
        split,
        image_id,
        tuple(languages),
        boxes_of(record["boxes"], where) if record.get("boxes") else (),
        where,
    )


@lru_cache(maxsize=16)
def _told_by(shard: Path) -> tuple[str, str]:
    """Return a shard's name without its ending, and the split that it tells: once a shard, not once a sample."""
    return shard.stem, split_of_name(shard.name)


def _record(sample: dict[str, Any], where: str) -> dict[str, Any]:
    if "json" not in sample:
        return {}
    try:
        record = json.loads(sample["json"])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: its .json is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: its .json is {str(record)[:60]!r}; it must be an object")
    return record


def _decoded(text: bytes, where: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its .txt is not UTF-8 ({error.reason})") from error
