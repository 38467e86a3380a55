"""Data of any format as examples, one after the other or all of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example
from corpus.formats.files import Reading
from corpus.formats.known import told


def stream_data(data: str | Path, *, faults: ErrorLog | None = None, need_images: bool = True) -> Iterator[Example]:
    """Yield the examples of a file or folder, captions of all languages, in the order of the data; no picture is held.

    `FORMAT:PATH` says the format where it cannot be told. With `faults` that keep, reading goes on behind a bad record;
    else DataError is raised at the first, and always for data that is not there or cannot be told. `unique` holds that ids
    are told once; it has to remember them all.
    """
    faults = faults or ErrorLog()
    entry, paths, columns = told(str(data))
    with faults:
        for example in entry.read(paths, Reading(faults, need_images, columns)):
            sound = example.image_id.isascii() and example.image_id.isprintable()
            with faults:
                sound = sound or _is_plain(example)
            if sound:
                yield example


def unique(examples: Iterable[Example], data: str | Path, faults: ErrorLog | None = None) -> Iterator[Example]:
    """Pass examples on; an image id that is told twice, or in two splits, is a fault."""
    faults = faults or ErrorLog()
    split_of: dict[str, str] = {}
    for example in examples:
        with faults:
            _check_once(data, example, split_of)
            yield example


def read_data(data: str | Path, *, language: str = "en", need_captions: bool = True, need_images: bool = True) -> list[Example]:
    """Return the examples with their captions in `language` and those whose language is not told.

    Raises DataError at the first fault: nothing is read by half.
    """
    examples = list(unique(stream_data(data, need_images=need_images), data))
    if not examples:
        raise DataError(f"{data} holds no picture; name data that has some, or say its format: FORMAT:PATH")
    found = [example.in_language(language) for example in examples]
    if any(example.references for example in examples) and not any(example.references for example in found):
        known = sorted({tag for example in examples for tag in example.languages})
        raise DataError(f"{data} has no caption in {language!r}; it has {', '.join(known)}: say --language")
    return [example for example in found if example.references or not need_captions]


def _is_plain(example: Example) -> bool:
    """Hold that id, split and languages are characters that can be written."""
    for what, text in (("image id", example.image_id), ("split", example.split), ("language", " ".join(example.languages))):
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise DataError(f"{example.where}: the {what} {text!r} holds a control character or half a character; change it")
    return True


def _check_once(data: str | Path, example: Example, split_of: dict[str, str]) -> None:
    other = split_of.setdefault(example.image_id, "")
    split_of[example.image_id] = example.split
    if other and other != example.split:
        raise DataError(
            f"{data}: image {example.image_id!r} is in the splits {other!r} and {example.split!r}; an image must be in "
            "one of them only, or what is tested on was trained on"
        )
    if other:
        raise DataError(f"{data}: image {example.image_id!r} is told twice ({example.place}); join its captions in one record")
