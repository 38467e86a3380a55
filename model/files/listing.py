"""Image files that a command line names: from files and folders, in a stable order; and a reason for each file left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import read_reason
from model.image import ALL_FORMATS, IMAGE_SUFFIXES, describe, is_image_name, is_system_name, sniff_format

_HEAD_BYTES = 4096  # enough for every signature
_TEXT_SUFFIXES = frozenset({".txt", ".caption", ".xmp", ".json", ".npz", ".md", ".csv", ".jsonl"})  # of files beside an image


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to caption: its path, and its name below the folder that was named."""

    path: Path
    name: Path

    @property
    def text(self) -> str:
        """The path as text that can be written: bytes that are not UTF-8 are escaped."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class Listing:
    """The images, in order; and what is not captioned, with the reason."""

    images: list[ImageFile] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)  # images, or named by the user, that cannot be read
    not_images: dict[Path, str] = field(default_factory=dict)
    truncated: list[Path] = field(default_factory=list)  # captioned by what could be decoded
    uncertain: list[Path] = field(default_factory=list)  # no caption of theirs reaches min_confidence


def list_images(named: Sequence[Path]) -> Listing:
    """Return the images of files and folders, each once; folders are searched with their subfolders.

    Hidden files and folders are left out. A file is an image by its suffix, or by its first bytes if it has another suffix.
    """
    listing, known = Listing(), set[Path]()
    for path in named:
        if path.is_dir():
            files = list(_files_below(path, listing))
            stems = {file.with_suffix("") for file in files if file.suffix.lower() in IMAGE_SUFFIXES}
            for file in files:
                _add(listing, known, ImageFile(file, file.relative_to(path)), stems)
        elif path.exists():
            _append(listing, known, ImageFile(path, Path(path.name)))
        else:
            listing.failed[path] = "there is no such file or folder"
    return listing


def read_error(error: OSError) -> str:
    """Return why a file cannot be read, without the system's error number and path."""
    if isinstance(error, FileNotFoundError):
        return "the file has been removed"
    if isinstance(error, PermissionError):
        return "this user may not read it"
    return f"it cannot be read ({read_reason(error)})"


def _files_below(folder: Path, listing: Listing) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, sorted by path."""

    def report(error: OSError) -> None:
        listing.failed[Path(error.filename)] = "this user may not read the folder"

    for parent, folders, names in os.walk(folder, onerror=report):
        for name in [name for name in folders if not is_system_name(name) and (Path(parent) / name).is_symlink()]:
            listing.not_images[Path(parent) / name] = "a linked folder, which is not followed; name it to caption it"
        folders[:] = sorted(name for name in folders if not is_system_name(name))
        for name in sorted(names):
            if not is_system_name(name):
                yield Path(parent) / name


def _add(listing: Listing, known: set[Path], file: ImageFile, stems: set[Path]) -> None:
    """Add a file of a folder where it belongs."""
    path, suffix = file.path, file.path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        _append(listing, known, file)
    elif suffix in _TEXT_SUFFIXES and (path.with_suffix("") in stems or path.with_suffix("").suffix.lower() in IMAGE_SUFFIXES):
        return  # a text that belongs to an image
    elif not path.is_file():
        listing.not_images[path] = "not a regular file"
    elif suffix in _TEXT_SUFFIXES:
        listing.not_images[path] = f"a {suffix} file, not an image"
    else:
        try:
            with path.open("rb") as stream:
                format = sniff_format(stream.read(_HEAD_BYTES))
        except OSError as error:
            listing.failed[path] = read_error(error)
            return
        if is_image_name(path) and format in ("", "TIFF"):  # camera raw files are TIFF files of a kind
            listing.failed[path] = f"{suffix} files are not read; convert it to JPEG or PNG"
        elif is_image_name(path) or format in ALL_FORMATS:
            _append(listing, known, file)
        else:
            listing.not_images[path] = (
                f"{describe(format)}, which is not captioned" if format else "not an image, by its suffix and its first bytes"
            )


def _append(listing: Listing, known: set[Path], file: ImageFile) -> None:
    if file.path not in known:
        known.add(file.path)
        listing.images.append(file)
