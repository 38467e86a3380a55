"""Identity of images: the same file twice is an error, different images of one name or id get different image ids."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example, ShardMember
from corpus.formats.image_files import without_image_suffix

_Image = Path | tuple[Path, int] | str  # a file, a member of a shard, or the id of an image in memory


def unique_examples(examples: Iterable[Example], data: str | Path, errors: ErrorLog | None = None) -> Iterator[Example]:
    """Yield the examples with unique image ids; all of them are kept in memory, their images are not.

    An image that occurs twice is an error in `errors`. Different images with the same id get the split before it
    (`train/1` and `val/1`), or the name of their folder, shard or file; `Example.own_id` stays the id in the data.
    """
    errors = errors or ErrorLog()
    first: dict[_Image, Example] = {}
    for example in examples:
        with errors:
            _check_unique(data, example, first.setdefault(_image_of(example), example))
    by_id: defaultdict[str, list[Example]] = defaultdict(list)
    for example in first.values():
        by_id[example.image_id].append(example)
    used = {image_id for image_id, same_id in by_id.items() if len(same_id) == 1}
    new_ids: dict[_Image, str] = {}
    for image_id, same_id in by_id.items():
        if len(same_id) > 1:
            names = _distinct_ids(image_id, same_id, used)
            used.update(names)
            new_ids |= {_image_of(example): name for example, name in zip(same_id, names, strict=True)}
    for image, example in first.items():
        yield replace(example, image_id=new_ids[image]) if image in new_ids else example


def _image_of(example: Example) -> _Image:
    image = example.image
    if isinstance(image, ShardMember):
        return image.shard, image.offset
    return image if isinstance(image, Path) else example.image_id


def _check_unique(data: str | Path, example: Example, first: Example) -> None:
    """Raise DataError if the example is another one of the same image than `first`."""
    if example is first:
        return
    if example.split != first.split:
        raise DataError(
            f"{data}: image {example.image_id!r} is in the splits {first.split!r} and {example.split!r} ({example.location}); an "
            "image must be in one split only, because test images must not occur in training"
        )
    raise DataError(
        f"{data}: image {example.image_id!r} occurs twice ({example.location}; {first.origin}, {example.origin}); join its "
        "captions in one record"
    )


def _distinct_ids(image_id: str, examples: list[Example], used: set[str]) -> list[str]:
    """Return a different id for each of several images with the same id."""
    ways: list[Callable[[Example], str]] = [lambda example: f"{example.split}/{image_id}"]
    if all(isinstance(example.image, Path) for example in examples):
        common = os.path.commonpath([example.image.parent for example in examples if isinstance(example.image, Path)])
        ways += [lambda example: without_image_suffix(_relative(example, common)), lambda example: _relative(example, common)]
    if all(isinstance(example.image, ShardMember) for example in examples):
        folder = os.path.commonpath(
            [example.image.shard.parent for example in examples if isinstance(example.image, ShardMember)]
        )
        ways += [lambda example: f"{_shard(example, folder)}/{image_id}"]
    for way in ways:
        names = [way(example) for example in examples]
        if len(set(names)) == len(names) and not used & set(names):
            return names
    numbered = (f"{image_id} ({number})" for number in count(1))
    return list(islice((name for name in numbered if name not in used), len(examples)))


def _relative(example: Example, folder: str) -> str:
    return Path(os.path.relpath(example.image, folder)).as_posix() if isinstance(example.image, Path) else ""


def _shard(example: Example, folder: str) -> str:
    """Return the path of an example's shard below a folder, without its suffix."""
    return (
        Path(os.path.relpath(example.image.shard, folder)).with_suffix("").as_posix()
        if isinstance(example.image, ShardMember)
        else ""
    )
