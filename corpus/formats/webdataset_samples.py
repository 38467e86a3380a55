"""Webdataset shards: a sample consists of the members with one key, an image with .json or .txt, as img2dataset writes them.

The json has `captions`, `caption` or `text` (else the .txt is the caption), and optionally `image_id`, `split`, `languages`
and `boxes`. Without them the image id is shard/key and the split is that in the name of the shard.
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
from corpus.example import Example, ShardMember
from corpus.formats.cells import captions_in_cell
from corpus.formats.columns import COLUMNS
from corpus.formats.fields import boxes_from, captions_from, image_id_from, is_null
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import split_source
from corpus.formats.splits import normalize_split, split_from_name
from corpus.formats.tar_shards import ShardWriters, iter_members
from corpus.formats.text_files import decode_text, json_position
from corpus.formats.writer import NewFolder, enumerate_valid, example_record, image_suffix, read_image
from model import IMAGE_SUFFIXES

_TEXT_SUFFIXES = (".json", ".txt", ".caption")
_IMAGE_KEYS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)


def read_samples(shards: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Stream the samples of shards in order; nothing is kept in memory."""

    def report_duplicate(error: Exception) -> bool:
        with options.errors:
            raise DataError(f"a member of a sample occurs twice: {error.args[0]}; keys must be unique in a shard") from error
        return True

    sources = {path: split_source(path, shards) for path in shards}
    for sample in group_by_keys(_members(shards, options), handler=report_duplicate):
        example = None
        with options.errors:
            example = _example(sample, f"{sample['__url__']}, sample {sample['__key__']!r}", options, sources)
        if example is not None:
            yield example


def write_samples(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write <split>-000000.tar, …: an image, a json with all fields, and the first caption as .txt for other programs."""
    with ExitStack() as stack:
        writers = ShardWriters(folder, stack)
        for number, example in enumerate_valid(examples):
            data = read_image(example)
            text = {"txt": example.references[0]} if example.references else {}
            suffix = image_suffix(example, data)[1:].lower()
            sample = {"__key__": f"{number:09d}", suffix: data, "json": example_record(example)}
            writers.write(example.split, sample | text)


def _members(shards: list[Path], options: ReadOptions) -> Iterator[dict[str, Any]]:
    """Yield what webdataset groups: the name of each member with its content, or an image's ShardMember; {} ends a shard."""
    for path in shards:
        url = str(path)
        for member, content in iter_members(path, options, _TEXT_SUFFIXES):
            is_text = member.name.lower().endswith(_TEXT_SUFFIXES)
            yield {"fname": member.name, "data": content if is_text else member, "__url__": url}
        yield {}


def _example(sample: dict[str, Any], origin: str, options: ReadOptions, sources: dict[Path, str]) -> Example:
    image_keys = [key for key in sample if key in _IMAGE_KEYS]
    if len(image_keys) != 1:
        keys = sorted(key for key in sample if not key.startswith("__"))
        hint = "; a key ends at the first dot of a name" if any("." in key for key in keys) else ""
        hint = hint or ("" if image_keys else ": members of one sample must follow each other")
        raise DataError(f"{origin} has {len(image_keys)} images among its members ({', '.join(keys)}); it must have one{hint}")
    image = sample[image_keys[0]]
    assert isinstance(image, ShardMember)
    record = _json_record(sample, origin)
    names = [options.columns["caption"]] if "caption" in options.columns else COLUMNS["caption"]
    value = next((record[name] for name in names if record.get(name) is not None and not is_null(record, name)), None)
    for key in ("txt", "caption"):
        if value is None and key in sample:
            value = decode_text(sample[key], f"{origin}, its .{key}")
    value = captions_in_cell(value) if isinstance(value, str) else value
    languages = record.get(options.columns.get("language", "languages")) or record.get("language")
    texts, tags = captions_from(value, languages, origin, options.errors)
    own_split = record.get(options.columns.get("split", "split"))
    image_id = image_id_from(record.get(options.columns.get("id", "image_id")), origin)
    if "id" in options.columns and image_id is None:
        raise DataError(
            f"{origin} has no {options.columns['id']!r} in its .json; it has {', '.join(map(repr, record)) or 'none'}"
        )
    return Example(
        image,
        tuple(texts),
        normalize_split(str(own_split)) if own_split else _split_of(sources[image.shard]),
        image_id or f"{image.shard.stem}/{sample['__key__']}",
        tuple(tags),
        boxes_from(record["boxes"], origin) if record.get("boxes") else (),
        origin,
    )


@lru_cache(maxsize=16)
def _split_of(source: str) -> str:
    """Return the split in the name of a shard; cached, because it is called for every sample."""
    return split_from_name(source)


def _json_record(sample: dict[str, Any], origin: str) -> dict[str, Any]:
    if "json" not in sample:
        return {}
    try:
        record = json.loads(decode_text(sample["json"], f"{origin}, its .json"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin}: its .json is not JSON{json_position(error)}; write the sample again") from error
    if not isinstance(record, dict):
        raise DataError(f"{origin}: its .json is {str(record)[:60]!r}; it must be an object")
    return record
