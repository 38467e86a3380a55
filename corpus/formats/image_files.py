"""Image files: their suffixes, and where a data set keeps them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def without_image_suffix(name: str) -> str:
    """Return a file name without the suffix of an image format. Any other suffix is a part of the name."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def find_image(roots: list[Path], name: str, split: str) -> Path | None:
    """Return the path of an image in one of the roots, its images/ or a folder named like the split; None if it is missing."""
    for root in roots if name else ():
        for folder in (root, root / "images", root / split, root / f"{split}2017", root / f"{split}2014"):
            try:
                if (folder / name).is_file():
                    return folder / name
            except (OSError, ValueError):  # the name is too long, or has characters that no file name can have
                return None
    return None


def missing_image_message(name: str, origin: str, folder: Path | None) -> str:
    """Return the message for a missing image; `folder` is None if the image should be in a shard."""
    if folder is None:
        return f"{origin}: the image {name!r} is in none of the shards; add the shard that has it"
    return f"{origin}: the image {name!r} is not in {folder}, its images/ or a folder named like the split; copy it there"
