"""Image files: their names, and where a data set keeps them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from corpus.formats.splits import split_in_name
from model import IMAGE_SUFFIXES, is_system_name

_IMAGE_FOLDER = re.compile(
    r"images?\d*|imgs?|jpe?gs?|jpegimages|photos?|pics?|data|.*[ _-]images?|.*dataset.*|flick.*|coco.*|img_.*"
)
_CAPTION_FOLDER = re.compile(r".*(annotation|caption|text|label|token|json|csv|metadata).*")
_MAX_DEPTH = 3  # folders between a captions file and its images: flickr30k_images/flickr30k_images of Kaggle


def without_image_suffix(name: str) -> str:
    """Return a file name without the suffix of an image format. Any other suffix is a part of the name."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def is_system_file(name: str) -> bool:
    """Return whether a file, or a folder that it is in, is hidden or one that an operating system adds."""
    return any(map(is_system_name, name.split("/")))


def normalize_name(name: str) -> str:
    """Return the name of an image file with `/` between folders, and without empty folders and `.`."""
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    return ("/" if slashed.startswith("/") else "") + "/".join(parts)


def image_roots(path: Path) -> list[Path]:
    """Return the folders that image names of a captions file are relative to.

    They are its folder, and the folder above if the file is in a folder such as annotations/ or Flickr8k_text/.
    """
    roots = [path.parent]
    while len(roots) < _MAX_DEPTH and _CAPTION_FOLDER.fullmatch(roots[-1].name.lower()):
        roots.append(roots[-1].parent)
    return roots


class ImageFinder:
    """Finds the image files that records name, in the layouts of usual data sets; it keeps the folders that it has listed."""

    def __init__(self) -> None:
        self._folders: dict[tuple[Path, str], list[Path]] = {}

    def find(self, roots: list[Path], name: str, split: str) -> Path | None:
        """Return the path of an image, None if it is missing.

        It is in one of the roots, its images/, a folder named like the split, or a folder of images such as
        flickr30k_images/. The name may have been written on Windows (`\\`), or on another machine (an absolute path).
        """
        for candidate in _spellings(name):
            for root in roots:
                folders = (root, root / "images", root / split, root / f"{split}2017", root / f"{split}2014")
                for folder in (*folders, *self._image_folders(root, split)):
                    try:
                        if (folder / candidate).is_file():
                            return folder / candidate
                    except (OSError, ValueError):  # the name is too long, or has characters that no file name can have
                        return None
        return None

    def _image_folders(self, root: Path, split: str) -> list[Path]:
        if (root, split) not in self._folders:
            self._folders[root, split] = list(_image_folders(root, split, _MAX_DEPTH))
        return self._folders[root, split]


def missing_image_message(name: str, origin: str, folder: Path | None) -> str:
    """Return the message for a missing image; `folder` is None if the image should be in a shard."""
    if folder is None:
        return f"{origin}: the image {name!r} is in none of the shards; add the shard that has it"
    return f"{origin}: the image {name!r} is not in {folder}, its images/ or a folder named like the split; copy it there"


def _image_folders(root: Path, split: str, depth: int) -> Iterator[Path]:
    """Yield the folders below `root` that are alone in theirs, or whose names are those of folders of images, or of `split`."""
    try:
        folders = sorted(path for path in root.iterdir() if not is_system_file(path.name) and path.is_dir())
    except OSError:
        return
    for folder in folders:
        own_split = split_in_name(folder.name)
        is_usual = len(folders) == 1 or _IMAGE_FOLDER.fullmatch(folder.name.lower())
        if own_split == split or (not own_split and is_usual):
            yield folder
            if depth > 1:
                yield from _image_folders(folder, split, depth - 1)


def _spellings(name: str) -> list[str]:
    """Return the names that a file may have: as it is, normalized, and without the folders of another machine."""
    normal = normalize_name(name)
    names = dict.fromkeys(filter(None, (name, normal)))
    if not name.isascii():  # macOS decomposes letters with accents
        names |= dict.fromkeys(unicodedata.normalize(form, normal) for form in ("NFC", "NFD"))
    stem, suffix = without_image_suffix(normal), normal[len(without_image_suffix(normal)) :]
    names |= dict.fromkeys(stem + case for case in (suffix.lower(), suffix.upper()) if suffix)
    if normal.startswith("/") or re.match(r"[A-Za-z]:/", normal):
        parts = normal.split("/")[1:]
        names |= dict.fromkeys("/".join(parts[start:]) for start in range(len(parts)))
    return list(names)
