"""Reading of data in any format: a stream of examples, or a list."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example
from corpus.formats.read_options import ReadOptions
from corpus.formats.registry import detect_format


def stream_data(data: str | Path, *, errors: ErrorLog | None = None, need_images: bool = True) -> Iterator[Example]:
    """Yield the examples of a file or folder in its order, with captions in all languages. No image is kept in memory.

    `data` is PATH, or FORMAT:PATH if the format cannot be detected. Raises DataError at the first error; if `errors` keeps
    messages, only if the data does not exist or its format is unknown. Image ids may occur twice: see `unique_examples`.
    """
    errors = errors or ErrorLog()
    data_format, paths, columns = detect_format(str(data))
    with errors:
        for example in data_format.read(paths, ReadOptions(errors, need_images, columns)):
            is_valid = example.image_id.isascii() and example.image_id.isprintable()
            with errors:
                is_valid = is_valid or _is_encodable(example)
            if is_valid:
                yield example


def unique_examples(examples: Iterable[Example], data: str | Path, errors: ErrorLog | None = None) -> Iterator[Example]:
    """Yield the examples; an image id that occurs twice is an error in `errors`. All image ids are kept in memory."""
    errors = errors or ErrorLog()
    split_of: dict[str, str] = {}
    for example in examples:
        with errors:
            _check_unique(data, example, split_of)
            yield example


def read_data(
    data: str | Path,
    *,
    language: str = "en",
    need_captions: bool = True,
    need_images: bool = True,
    errors: ErrorLog | None = None,
) -> list[Example]:
    """Return all examples with their captions in `language` and those without a language.

    With `need_captions`, examples without such captions are left out. Raises DataError at the first error; if `errors` keeps
    messages, only if no example is left.
    """
    examples = list(unique_examples(stream_data(data, errors=errors, need_images=need_images), data, errors))
    if not examples:
        raise DataError(f"{data} has no image; name data with images, or its format: FORMAT:PATH")
    selected = [example.in_language(language) for example in examples]
    if any(example.references for example in examples) and not any(example.references for example in selected):
        tags = sorted({tag for example in examples for tag in example.languages})
        raise DataError(f"{data} has no caption in {language!r}; it has {', '.join(tags)}: choose one with --language")
    return [example for example in selected if example.references or not need_captions]


def _is_encodable(example: Example) -> bool:
    """Return True. Raises DataError if the image id, the split or a language has a character that cannot be written."""
    for name, text in (("image id", example.image_id), ("split", example.split), ("language", " ".join(example.languages))):
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise DataError(f"{example.origin}: the {name} {text!r} has a control character or an unpaired surrogate; change it")
    return True


def _check_unique(data: str | Path, example: Example, split_of: dict[str, str]) -> None:
    other = split_of.setdefault(example.image_id, "")
    split_of[example.image_id] = example.split
    if other and other != example.split:
        raise DataError(
            f"{data}: image {example.image_id!r} is in the splits {other!r} and {example.split!r}; an image must be in "
            "one split only, because test images must not occur in training"
        )
    if other:
        raise DataError(f"{data}: image {example.image_id!r} occurs twice ({example.location}); join its captions in one record")
