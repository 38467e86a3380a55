"""Tar shards of images, with the captions in JSON-lines files next to them, one file per language.

A line of `captions.<language>.jsonl` is {"image", "captions"[, "split"][, "boxes": [[x0, y0, x1, y1, class], …]]}; `image` is
the name of a member of one of the shards without its suffix. Images are not kept in memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, ShardMember
from corpus.formats.fields import LANGUAGE_TAG
from corpus.formats.image_files import missing_image_message, without_image_suffix
from corpus.formats.json_lines import json_records
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import CaptionRecord, join_records
from corpus.formats.splits import split_from_name
from corpus.formats.tar_shards import ShardWriters, iter_members
from corpus.formats.writer import NewFolder, enumerate_valid, example_record, image_stem, image_suffix, read_image
from model import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_FIELDS = ("image", "split", "captions", "boxes")


def read_shards(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read captions files (*.jsonl) and the shards (*.tar) of their images; images without a line come last, without captions.

    Several shards may have a member of one name: a line means that of the shard whose name has its split.
    """
    members: defaultdict[str, list[ShardMember]] = defaultdict(list)
    for member, _ in chain.from_iterable(iter_members(path, options) for path in paths if path.suffix == ".tar"):
        if PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES:
            members[without_image_suffix(PurePosixPath(member.name).name)].append(member)
        elif PurePosixPath(member.name).suffix.lower() in UNREAD_SUFFIXES:
            options.errors.skip(f"{member.shard}, member {member.name!r}", "is in a format that is not read")
    unused = {member: name for name, same_name in members.items() for member in same_name}

    def locate(record: CaptionRecord, name: str, split: str) -> ShardMember | None:
        candidates = members.get(name, [])
        if len(candidates) > 1:
            candidates = [member for member in candidates if split_from_name(member.shard.name) == split]
        if len(candidates) > 1:
            for member in candidates:
                unused.pop(member, None)
            texts = " and ".join(f"{member.shard}, member {member.name!r}" for member in candidates[:2])
            raise DataError(f"{record.origin}: the image {name!r} is in {texts}; rename one")
        if not candidates and options.need_images:
            raise DataError(missing_image_message(name, record.origin, None))
        return candidates[0] if candidates else None

    records = chain.from_iterable(_records(path, options) for path in paths if path.suffix != ".tar")
    for example in join_records(records, options, locate):
        if isinstance(example.image, ShardMember):
            unused.pop(example.image, None)
        yield example
    for member, name in unused.items():
        yield Example(member, (), split_from_name(member.shard.name), name, origin=f"{member.shard}, member {member.name!r}")


def write_shards(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write <split>-000000.tar, … and captions.<language>.jsonl (captions.jsonl for captions without a language)."""
    with ExitStack() as stack:
        writers = ShardWriters(folder, stack)
        files: dict[str, Any] = {}
        for _, example in enumerate_valid(examples):
            name = image_stem(example)
            data = read_image(example)
            writers.write(example.split, {"__key__": name, image_suffix(example, data)[1:].lower(): data})
            by_language: defaultdict[str, list[str]] = defaultdict(list)
            for text, language in zip(example.references, example.languages, strict=True):
                by_language[language].append(text)
            for language, texts in (by_language or {"": []}).items():
                if language not in files:
                    files[language] = stack.enter_context(
                        folder.open(f"captions.{language}.jsonl" if language else "captions.jsonl")
                    )
                record = example_record(example) | {"image": name, "captions": texts}
                line = {key: record[key] for key in _FIELDS if key in record}
                files[language].write(json.dumps(line, ensure_ascii=False) + "\n")


def _records(path: Path, options: ReadOptions) -> Iterator[CaptionRecord]:
    tag = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
    language = tag if LANGUAGE_TAG.fullmatch(tag) else ""
    for record in json_records(path, options, language=language, split_source=path.name):
        # The name of a member is the image id; a suffix in it is a part of the id.
        yield replace(record, values=record.values | {"image_id": record.values.get("image")})
