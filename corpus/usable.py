"""Entries of a dataset whose images can be used, and the problems of the others: training may leave them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from corpus.dataset import CaptionedImage, FileLoader
from corpus.errors import DataError

_MIN_SIZE = (64, 64)  # a JPEG is decoded at a reduced size; every byte of it is read all the same


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the image of an entry cannot be used: the record, and a message that names the file and says what to do."""

    origin: str
    message: str


def usable_entries(entries: Sequence[CaptionedImage]) -> tuple[list[CaptionedImage], list[Problem]]:
    """Return the entries whose images exist and can be decoded, in their order, and one problem for each of the others.

    Every image is decoded once, several in parallel; rendered scenes can always be used.
    """
    usable, problems = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = zip(entries, pool.map(_problem, entries), strict=True)
        for entry, problem in tqdm(
            results, total=len(entries), desc="images", unit="image", mininterval=1, leave=False, disable=None
        ):
            if problem is None:
                usable.append(entry)
            else:
                problems.append(problem)
    return usable, problems


def _problem(entry: CaptionedImage) -> Problem | None:
    if isinstance(entry.load, FileLoader):
        try:
            entry.load.decode(_MIN_SIZE)
        except DataError as error:
            return Problem(entry.origin, str(error))
    return None
