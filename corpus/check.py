"""Check of captioned images before training: every record, caption and image is read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from corpus.check_captions import check_captions
from corpus.check_files import check_files
from corpus.check_images import check_images, inspect_images
from corpus.errors import ErrorLog
from corpus.example import Example
from corpus.findings import Case, Finding, Report, findings_of
from corpus.formats import ReadOptions, stream_data, unique_examples
from corpus.formats.flickr8k import read_list
from corpus.formats.image_files import without_image_suffix


def check_data(data: str, *, language: str = "", lists: Mapping[str, Path] | None = None) -> Report:
    """Check all records, captions and images of `data`, and return the findings. The check continues after an error.

    `language` is the language of captions without a language tag. Without it, they are compared with the script of most
    captions. `lists` maps splits to official lists of their images, one name per line: differences are reported.
    Raises DataError if `data` does not exist, its format is unknown, or a list cannot be read.
    """
    start = time.perf_counter()
    errors = ErrorLog(keep=True)
    report = Report(data)
    examples, inspections = [], []
    stream = unique_examples(stream_data(data, errors=errors, need_images=False), data, errors)
    for example, inspection in tqdm(
        inspect_images(stream), desc="images", unit="image", mininterval=1, leave=False, disable=None
    ):
        examples.append(example)
        inspections.append(inspection)
    records = [Case("", message) for message in errors.messages]
    report.images = dict(Counter(example.split for example in examples))
    report.captions = dict(Counter(language for example in examples for language in example.languages))
    empty = [] if examples or records else [Case(data, "no image")]
    findings = [
        *findings_of("error", "no data", "Name data with images, or its format: FORMAT:PATH.", empty),
        *findings_of("error", "unreadable records", "Fix them. The findings below do not include them.", records),
        *check_images(examples, inspections),
        *check_captions(examples, language),
        *check_files(data, examples, errors),
        *_compare_with_lists(examples, lists or {}),
        *_caption_counts(examples),
    ]
    order = ("error", "warning", "note")
    report.findings = sorted(findings, key=lambda finding: order.index(finding.level))
    report.seconds = time.perf_counter() - start
    return report


def _compare_with_lists(examples: list[Example], lists: Mapping[str, Path]) -> list[Finding]:
    findings: list[Finding] = []
    for split, path in lists.items():
        listed = {without_image_suffix(name): origin for name, origin in read_list(path, ReadOptions()).items()}
        present = {example.image_id: example for example in examples if example.split == split}
        unlisted = [Case(example.origin, repr(name), (example,)) for name, example in present.items() if name not in listed]
        absent = [Case(origin, repr(name)) for name, origin in listed.items() if name not in present]
        advice = "Scores are comparable only on the same images."
        findings += findings_of("warning", f"images in {split} that {path.name} does not list", advice, unlisted)
        findings += findings_of("warning", f"images of {path.name} that are not in {split}", advice, absent)
    return findings


def _caption_counts(examples: list[Example]) -> list[Finding]:
    """Return a note if images have different numbers of captions: scores rise with the number of references."""
    counts = Counter(count for example in examples for count in Counter(example.languages).values())
    if len(counts) < 2:
        return []
    text = ", ".join(f"{number} in {num_images:,}" for number, num_images in sorted(counts.items()))
    advice = "Scores rise with the number of references. Compare scores only at the same number."
    cases = [Case("", f"captions of one language: {text}")]
    return findings_of("note", "images have different numbers of captions", advice, cases)
