"""Tar shards of pictures: beside JSON-lines files of captions, one a language, or with the captions inside (webdataset).

`captions.<language>.jsonl`: a line is {"image", "captions"[, "split"][, "boxes": [[x0, y0, x1, y1, class], …]]}, `image` the
name of a member of one of the shards without its ending. No picture is held: an example knows where its bytes lie.
"""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import webdataset

from corpus.errors import DataError
from corpus.example import Example, Member
from corpus.formats.files import LANGUAGE, PICTURES, Reading, split_of_name, without_ending
from corpus.formats.json_lines import json_rows
from corpus.formats.records import Row, join_rows
from corpus.formats.writing import NewFolder, ending_of, numbered, picture_stem, read_picture_of, record_of

SAMPLES, BYTES = 10_000, 1_000_000_000  # that a shard is closed at
_PART = 1 << 20  # bytes that are looked at together


def read_shards(captions: list[Path], shards: list[Path], reading: Reading) -> Iterator[Example]:
    """Read captions files of JSON lines whose pictures lie in the shards; pictures that no line names come last, without."""
    found: dict[str, Member] = {}
    for member, _ in chain.from_iterable(members(path, reading) for path in shards):
        if PurePosixPath(member.name).suffix.lower() in PICTURES:
            with reading.faults:
                name = without_ending(PurePosixPath(member.name).name)
                other = found.setdefault(name, member)
                if other is not member:
                    raise DataError(f"{member.shard}: the member {member.name!r} is in {other.shard} too; names are unique")
    rows = chain.from_iterable(_rows(path, reading) for path in captions)
    silent = dict(found)
    for example in join_rows(rows, reading, found.get):
        silent.pop(example.image_id, None)
        yield example
    for name, member in silent.items():
        yield Example(member, (), split_of_name(member.shard.name), name, where=f"{member.shard}, member {member.name!r}")


def write_shards(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write <split>-000000.tar, … and captions.<language>.jsonl (captions.jsonl where the language is not told)."""
    with ExitStack() as stack:
        writers = ShardWriters(folder, stack)
        files: dict[str, Any] = {}
        for _, example in numbered(examples):
            name = picture_stem(example)
            data = read_picture_of(example)
            writers.write(example.split, {"__key__": name, ending_of(example, data)[1:].lower(): data})
            told: defaultdict[str, list[str]] = defaultdict(list)
            for text, language in zip(example.references, example.languages, strict=True):
                told[language].append(text)
            for language, texts in (told or {"": []}).items():
                if language not in files:
                    files[language] = stack.enter_context(
                        folder.open(f"captions.{language}.jsonl" if language else "captions.jsonl")
                    )
                record = record_of(example) | {"image": name, "captions": texts}
                kept = {key: record[key] for key in ("image", "split", "captions", "boxes") if key in record}
                files[language].write(json.dumps(kept, ensure_ascii=False) + "\n")


def members(path: Path, reading: Reading, contents_of: tuple[str, ...] = ()) -> Iterator[tuple[Member, bytes]]:
    """Yield the files of a tar shard in order, with the contents of those whose names end so, b"" for the others.

    Headers are read, other contents are passed over. A broken shard is a fault, and so is a member that is a link.
    """
    with reading.faults, _opened(path) as archive:
        try:
            for entry in archive:
                if entry.isreg() and not entry.issparse():
                    entry.name.encode()
                    content = b""
                    if contents_of and entry.name.lower().endswith(contents_of):
                        assert archive.fileobj is not None, "it is open"
                        archive.fileobj.seek(entry.offset_data)
                        content = archive.fileobj.read(entry.size)
                    yield Member(path, entry.name, entry.offset_data, entry.size), content
                elif not entry.isdir():
                    with reading.faults:
                        raise DataError(f"{path}: the member {entry.name!r} is a link or no plain file; pack the file itself")
                archive.members = []  # type: ignore[attr-defined]  # else it remembers every one
            _check_end(path, archive.offset)
        except (OSError, tarfile.TarError, UnicodeEncodeError) as error:
            raise DataError(f"{path} is broken near byte {archive.offset} ({error}); copy the shard again") from error


class ShardWriters:
    """Rows of numbered shards, one a split, written by webdataset's TarWriter; leave the stack to close them."""

    def __init__(self, folder: NewFolder, stack: ExitStack) -> None:
        self.folder = folder
        self.open: dict[str, tuple[BinaryIO, Any]] = {}  # the file and its writer, by split
        self.counts: dict[str, tuple[int, int, int]] = {}  # shards, samples and bytes of the last one
        stack.callback(self.close)

    def write(self, split: str, sample: dict[str, Any]) -> None:
        """Write one sample: its `__key__`, and bytes, texts or JSON by ending."""
        shards, samples, size = self.counts.get(split, (0, 0, 0))
        if samples >= SAMPLES or size >= BYTES:
            self._close(split)
        if split not in self.open:
            # A file that is opened here: webdataset would take some names for commands.
            file = (self.folder.partial / f"{split}-{shards:06d}.tar").open("wb")
            self.open[split] = file, webdataset.TarWriter(file, mtime=0)  # the same data gives the same bytes
            shards, samples, size = shards + 1, 0, 0
        self.counts[split] = shards, samples + 1, size + self.open[split][1].write(sample)

    def close(self) -> None:
        """End all shards."""
        for split in list(self.open):
            self._close(split)

    def _close(self, split: str) -> None:
        file, writer = self.open.pop(split)
        with file:
            writer.close()


def _rows(path: Path, reading: Reading) -> Iterator[Row]:
    tag = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
    for row in json_rows(path, reading, tag if LANGUAGE.fullmatch(tag) else ""):
        # A member's name is the id; what looks like an ending belongs to it.
        yield replace(row, values=row.values | {"image_id": row.values.get("image")})


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read as a tar shard ({error}); unpack it if it is compressed, or copy it again"
        ) from error


def _check_end(path: Path, end: int) -> None:
    """Hold that nothing but zeros follows the last member: tarfile takes a broken header, or a second tar, for the end."""
    with path.open("rb") as file:
        file.seek(end)
        mark = file.read(tarfile.BLOCKSIZE)
        if mark != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path} breaks off at byte {end}, without the mark of an end; copy the shard again")
        while part := file.read(_PART):
            if part.strip(b"\0"):
                raise DataError(
                    f"{path} goes on behind its end mark at byte {end}; it may be two shards in one: unpack and pack again"
                )
