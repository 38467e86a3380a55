"""Tar shards: iteration over members without reading image files, and writing of numbered shards."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import webdataset

from corpus.errors import DataError
from corpus.example import ShardMember
from corpus.formats.image_files import is_system_file, normalize_name
from corpus.formats.read_options import ReadOptions
from corpus.formats.writer import NewFolder

MAX_SAMPLES, MAX_BYTES = 10_000, 1_000_000_000  # per shard
_CHUNK_SIZE = 1 << 20  # bytes


def iter_members(path: Path, options: ReadOptions, suffixes: tuple[str, ...] = ()) -> Iterator[tuple[ShardMember, bytes]]:
    """Yield the files in a tar shard in order, with the content of those with one of the `suffixes`, b"" for the others.

    Names are normalized (./a.jpg is a.jpg). Files of the operating system, such as ._a.jpg, are left out.
    A broken shard is an error in `options.errors`, and so is a member that is a link.
    """
    with options.errors, _open_shard(path) as archive:
        try:
            for entry in archive:
                if entry.name and is_system_file(entry.name):
                    pass
                elif entry.isreg() and not entry.issparse():
                    entry.name.encode()
                    content = b""
                    if suffixes and entry.name.lower().endswith(suffixes):
                        assert archive.fileobj is not None, "the archive is open"
                        archive.fileobj.seek(entry.offset_data)
                        content = archive.fileobj.read(entry.size)
                    yield ShardMember(path, normalize_name(entry.name), entry.offset_data, entry.size), content
                elif not entry.isdir():
                    with options.errors:
                        raise DataError(f"{path}: the member {entry.name!r} is not a regular file; pack the file itself")
                archive.members = []  # type: ignore[attr-defined]  # TarFile keeps all members otherwise
            _check_end(path, archive.offset)
        except (OSError, tarfile.TarError, UnicodeEncodeError) as error:
            raise DataError(f"{path} is broken near byte {archive.offset}; copy the shard again") from error


class ShardWriters:
    """Numbered shards per split, <split>-000000.tar, written by webdataset's TarWriter. The stack closes them."""

    def __init__(self, folder: NewFolder, stack: ExitStack) -> None:
        self.folder = folder
        self.open: dict[str, tuple[BinaryIO, Any]] = {}  # split -> file and its writer
        self.counts: dict[str, tuple[int, int, int]] = {}  # split -> shards, samples and bytes of the last shard
        stack.callback(self.close)

    def write(self, split: str, sample: dict[str, Any]) -> None:
        """Write one sample: its `__key__`, and bytes, a text or JSON by suffix."""
        shards, samples, size = self.counts.get(split, (0, 0, 0))
        if samples >= MAX_SAMPLES or size >= MAX_BYTES:
            self._close(split)
        if split not in self.open:
            # webdataset gets an open file: it would run some file names as commands.
            file = (self.folder.partial / f"{split}-{shards:06d}.tar").open("wb")
            self.open[split] = file, webdataset.TarWriter(file, mtime=0)  # the same data gives the same bytes
            shards, samples, size = shards + 1, 0, 0
        self.counts[split] = shards, samples + 1, size + self.open[split][1].write(sample)

    def close(self) -> None:
        """Close all shards."""
        for split in list(self.open):
            self._close(split)

    def _close(self, split: str) -> None:
        file, writer = self.open.pop(split)
        with file:
            writer.close()


def _open_shard(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read as a tar shard; decompress it if it is compressed, or copy it again") from error


def _check_end(path: Path, end: int) -> None:
    """Raise DataError if anything but zeros follows the last member: tarfile stops at a broken header or at a second tar."""
    with path.open("rb") as file:
        file.seek(end)
        end_mark = file.read(tarfile.BLOCKSIZE)
        if end_mark != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path} is truncated at byte {end}: the end mark is missing; copy the shard again")
        while chunk := file.read(_CHUNK_SIZE):
            if chunk.strip(b"\0"):
                raise DataError(
                    f"{path} has data after its end mark at byte {end}; it may be two concatenated shards: extract and pack again"
                )
