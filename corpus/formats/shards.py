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
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import webdataset

from corpus.errors import DataError
from corpus.example import Example, Member
from corpus.formats.files import PICTURES, Reading, without_ending
from corpus.formats.json_lines import json_rows
from corpus.formats.records import Row, join_rows
from corpus.formats.writing import NewFolder, ending_of, numbered, picture_stem, read_picture_of, record_of

SAMPLES, BYTES = 10_000, 1_000_000_000  # that a shard is closed at


def read_shards(captions: list[Path], shards: list[Path], reading: Reading) -> Iterator[Example]:
    """Read captions files of JSON lines whose pictures lie in the shards."""
    found: dict[str, Member] = {}
    for member, _ in chain.from_iterable(members(path, reading) for path in shards):
        if PurePosixPath(member.name).suffix.lower() in PICTURES:
            with reading.faults:
                name = without_ending(PurePosixPath(member.name).name)
                other = found.setdefault(name, member)
                if other is not member:
                    raise DataError(
                        f"{member.shard}: the member {member.name!r} is in {other.shard} too; names are unique over all shards"
                    )
    rows = chain.from_iterable(_rows(path, reading) for path in captions)
    return join_rows(rows, reading, lambda name, split: found.get(name))


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
                    files[language] = stack.enter_context(folder.open(f"captions.{language}.jsonl".replace("..", ".")))
                record = record_of(example) | {"image": name, "captions": texts}
                kept = {key: record[key] for key in ("image", "split", "captions", "boxes") if key in record}
                files[language].write(json.dumps(kept, ensure_ascii=False) + "\n")


def members(path: Path, reading: Reading, contents_of: tuple[str, ...] = ()) -> Iterator[tuple[Member, bytes]]:
    """Yield the files of a tar shard in order, with the contents of those whose names end so, b"" for the others.

    Headers are read, other contents are passed over. A broken shard is a fault.
    """
    with reading.faults, _opened(path) as archive:
        try:
            for entry in archive:
                if entry.isreg() and not entry.issparse():
                    entry.name.encode()
                    content = b""
                    if entry.name.endswith(contents_of):
                        assert archive.fileobj is not None, "it is open"
                        archive.fileobj.seek(entry.offset_data)
                        content = archive.fileobj.read(entry.size)
                    yield Member(path, entry.name, entry.offset_data, entry.size), content
                archive.members = []  # type: ignore[attr-defined]  # else it remembers every one
            _check_end(path, archive)
        except (OSError, tarfile.TarError, UnicodeEncodeError) as error:
            raise DataError(f"{path} is broken near byte {archive.offset} ({error}); copy the shard again") from error


class ShardWriters:
    """One row of numbered shards a split, written by webdataset's ShardWriter."""

    def __init__(self, folder: NewFolder, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.writers: dict[str, Any] = {}

    def write(self, split: str, sample: dict[str, Any]) -> None:
        """Write one sample: its `__key__`, and bytes, texts or JSON by ending."""
        if split not in self.writers:
            pattern = str(self.folder.partial / f"{split}-%06d.tar")
            # mtime 0: the same data gives the same bytes.
            writer = webdataset.ShardWriter(pattern, SAMPLES, BYTES, verbose=0, mtime=0)
            self.writers[split] = self.stack.enter_context(writer)
        self.writers[split].write(sample)


def _rows(path: Path, reading: Reading) -> Iterator[Row]:
    language = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
    for row in json_rows(path, reading, language):
        # A member's name is the id; what looks like an ending belongs to it.
        yield Row(row.where, row.values | {"image_id": row.values.get("image")}, row.split, row.language)


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read as a tar shard ({error}); unpack it if it is compressed, or copy it again"
        ) from error


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    """Hold that the shard ends with its end mark: tarfile takes a broken header, or a file cut off there, for the end."""
    with path.open("rb") as file:
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path} breaks off at byte {archive.offset}, without the mark of an end; copy the shard again")
