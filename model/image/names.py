"""Names of files: those of images, and those that file managers leave behind."""

from __future__ import annotations

from pathlib import PurePath

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif",
        ".tiff", ".heic", ".heics", ".heif", ".heifs", ".hif",
    }
)  # fmt: skip
"""Suffixes of files in formats that can be read."""

UNREAD_SUFFIXES = frozenset(
    {
        ".jxl", ".jp2", ".j2k", ".jpf", ".svg", ".psd", ".psb", ".xcf", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx",
        ".exr", ".hdr", ".dds", ".qoi", ".dcm", ".eps", ".ai", ".wmf", ".emf", ".djvu", ".dng", ".cr2", ".cr3", ".nef", ".nrw",
        ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",
    }
)  # fmt: skip
"""Suffixes of image files in other formats."""

_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})  # of macOS, Windows and Synology


def is_image_name(name: str | PurePath) -> bool:
    """Return whether a file's name ends as an image's does, of a format that is read or not."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES


def is_system_name(name: str) -> bool:
    """Return whether a file or a folder is hidden, or one that an operating system adds, such as ._a.jpg."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _SYSTEM_NAMES
