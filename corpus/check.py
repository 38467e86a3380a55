"""What is wrong with captioned pictures, before anybody trains on them: every record and picture is looked at."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from corpus.check_captions import check_captions
from corpus.check_pictures import check_pictures, look_at
from corpus.errors import ErrorLog
from corpus.example import Example
from corpus.findings import Case, Finding, Report, finding
from corpus.formats import stream_data, unique
from corpus.formats.files import Reading, without_ending
from corpus.formats.flickr8k import read_list


def check_data(data: str, *, language: str = "", lists: Mapping[str, Path] | None = None) -> Report:
    """Look at all records, captions and pictures of `data`; nothing stops at the first fault.

    `language` is that of the captions whose own is not told; without it they are held to the script of most.

    `lists` are official lists of a split, a picture's name a line: who is missing and who is there besides is told.
    """
    started = time.perf_counter()
    faults = ErrorLog(keep=True)
    report = Report(data)
    examples, looks = [], []
    stream = unique(stream_data(data, faults=faults, need_images=False), data, faults)
    for example, look in tqdm(look_at(stream), desc="pictures", unit="picture", mininterval=1, leave=False):
        examples.append(example)
        looks.append(look)
    records = [Case("", message) for message in faults.found]
    report.images = dict(Counter(example.split for example in examples))
    report.captions = dict(Counter(language for example in examples for language in example.languages))
    nothing = [] if examples or records else [Case(data, "no picture")]
    found = [
        *finding("error", "nothing to train on", "Name data with pictures, or its format: FORMAT:PATH.", nothing),
        *finding("error", "records that cannot be read", "Mend them; they are left out below.", records),
        *check_pictures(examples, looks),
        *check_captions(examples, language),
        *_beside_lists(examples, lists or {}),
        *_counts(examples),
    ]
    order = ("error", "warning", "note")
    report.findings = sorted(found, key=lambda entry: order.index(entry.level))
    report.seconds = time.perf_counter() - started
    return report


def _beside_lists(examples: list[Example], lists: Mapping[str, Path]) -> list[Finding]:
    found: list[Finding] = []
    for split, path in lists.items():
        listed = {without_ending(name): where for name, where in read_list(path, Reading()).items()}
        there = {example.image_id: example for example in examples if example.split == split}
        besides = [Case(example.where, repr(name), (example,)) for name, example in there.items() if name not in listed]
        absent = [Case(where, repr(name)) for name, where in listed.items() if name not in there]
        advice = "Figures compare with others' only on the same pictures."
        found += finding("warning", f"pictures in {split} that {path.name} does not list", advice, besides)
        found += finding("warning", f"pictures of {path.name} that are not in {split}", advice, absent)
    return found


def _counts(examples: list[Example]) -> list[Finding]:
    """Return a note where pictures have different numbers of captions: scores rise with the number of references."""
    counts = Counter(count for example in examples for count in Counter(example.languages).values())
    if len(counts) < 2:
        return []
    told = ", ".join(f"{number} in {pictures:,}" for number, pictures in sorted(counts.items()))
    advice = "Scores rise with the number of references: compare only where it is the same."
    return finding("note", "pictures have different numbers of captions", advice, [Case("", f"captions of one language: {told}")])
