"""Checks of images: missing, broken, blank, tiny, huge, of extreme aspect ratio, rotated by EXIF, duplicates."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import imagehash
import numpy as np

from corpus.duplicates import connected_groups, near_links
from corpus.example import Example, ShardMember
from corpus.findings import Case, Finding, findings_of
from model import ImageError, decode_image, read_reason

MIN_EDGE = 64  # pixels of the shorter edge
MAX_PIXELS = 50_000_000
MAX_ASPECT_RATIO = 4.0  # longer edge / shorter edge
MAX_HASH_DISTANCE = 6  # bits of 64 in which the hashes of near duplicates may differ
_BLANK_DEVIATION = 2.0  # gray levels of 255; an image with a smaller standard deviation is blank
_ALIKE_DIFFERENCE = 12.0  # gray levels of 255; thumbnails of near duplicates have a smaller mean difference
_BATCH_SIZE = 256  # images that are decoded together
_MAX_NAMES = 8  # images of a group that a message names
_THUMBNAIL_SIZE = 16  # pixels
_MIN_IMAGES_OF_ONE_SIZE = 20


@dataclass(frozen=True, slots=True)
class ImageInspection:
    """The properties of one image that the checks use."""

    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    phash: int = 0
    thumbnail: bytes = b""  # 16 x 16 gray values
    is_truncated: bool = False
    state: Literal["ok", "missing", "broken"] = "ok"
    error: str = ""


def inspect_images(examples: Iterable[Example]) -> Iterator[tuple[Example, ImageInspection]]:
    """Decode every image, several in parallel, and yield the inspections in the order of the examples."""
    iterator = iter(examples)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(iterator, _BATCH_SIZE)):
            yield from zip(batch, pool.map(_inspect, batch), strict=True)


def check_images(examples: Sequence[Example], inspections: Sequence[ImageInspection]) -> list[Finding]:
    """Return the findings about the images of examples."""
    pairs = list(zip(examples, inspections, strict=True))
    decoded = [(example, image) for example, image in pairs if image.state == "ok"]
    missing, broken = (
        [_case(example, image.error) for example, image in pairs if image.state == state] for state in ("missing", "broken")
    )
    tiny = [_case(example, _size_text(image)) for example, image in decoded if min(image.size) < MIN_EDGE]
    huge = [_case(example, _size_text(image)) for example, image in decoded if image.size[0] * image.size[1] > MAX_PIXELS]
    extreme = [
        _case(example, _size_text(image)) for example, image in decoded if max(image.size) > MAX_ASPECT_RATIO * min(image.size)
    ]
    rotated = [_case(example, f"orientation {image.orientation}") for example, image in decoded if image.orientation != 1]
    truncated = [_case(example, _size_text(image)) for example, image in decoded if image.is_truncated]
    blank = [_case(example, _size_text(image)) for example, image in decoded if _is_blank(image)]
    return [
        *findings_of("error", "missing images", "Copy them to the other images, or remove their records.", missing),
        *findings_of(
            "error",
            "broken images",
            "Download them again, or remove their records; truncated=accept uses what can be decoded.",
            broken,
        ),
        *findings_of("warning", "truncated images", "What can be decoded of them is used (truncated=accept).", truncated),
        *_duplicates([example for example, _ in decoded], [image for _, image in decoded]),
        *findings_of("warning", "blank images", "They have a single color: often a server's answer for a deleted image.", blank),
        *findings_of("warning", f"tiny images, an edge under {MIN_EDGE} pixels", "A model learns little from thumbnails.", tiny),
        *findings_of(
            "warning", f"huge images, over {MAX_PIXELS // 1_000_000} million pixels", "Shrink them to save time and memory.", huge
        ),
        *findings_of(
            "warning", f"extreme aspect ratios, over {MAX_ASPECT_RATIO:.0f} to 1", "They are resized to a square.", extreme
        ),
        *findings_of(
            "note", "images rotated by EXIF", "They are read upright here. Boxes must be those of the upright image.", rotated
        ),
        *_equal_sizes(decoded),
    ]


def _inspect(example: Example) -> ImageInspection:
    try:
        data = example.read()
    except (OSError, ValueError) as error:
        message = f"{example.location} cannot be read ({read_reason(error)})"
        if isinstance(error, FileNotFoundError):
            message = f"{example.location} does not exist, nor is it in a folder of images beside the captions; copy it there"
        return ImageInspection(state="missing", error=message)
    try:
        image = decode_image(data, example.image_limits, min_size=(64, 64))  # a JPEG is decoded at a reduced size
        gray = image.upright().convert("L")
    except ImageError as error:
        return ImageInspection(state="broken", error=f"{example.location}: {error}")
    except Exception:  # the conversion of a frame can fail with any error of a Pillow plugin
        return ImageInspection(state="broken", error=f"{example.location}: it cannot be converted to RGB; save it again")
    bits = imagehash.phash(gray).hash.ravel()
    return ImageInspection(
        hashlib.sha256(data).digest(),
        image.upright_size,
        image.orientation,
        int(np.packbits(bits).view(">u8")[0]),
        gray.resize((_THUMBNAIL_SIZE, _THUMBNAIL_SIZE)).tobytes(),
        image.is_truncated,
    )


def _duplicates(examples: Sequence[Example], images: Sequence[ImageInspection]) -> list[Finding]:
    by_digest: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_digest[image.digest].append(index)
    identical = [indices for indices in by_digest.values() if len(indices) > 1]
    firsts = [indices[0] for indices in by_digest.values() if not _is_blank(images[indices[0]])]  # one per digest
    hashes = np.array([images[index].phash for index in firsts], np.uint64)
    links = near_links(
        hashes, MAX_HASH_DISTANCE, lambda one, other: _difference(images[firsts[one]], images[firsts[other]]) < _ALIKE_DIFFERENCE
    )
    near = connected_groups([(firsts[one], firsts[other]) for one, other in links])
    cases: dict[tuple[str, bool], list[Case]] = defaultdict(list)
    for kind, groups in (("identical", identical), ("near", near)):
        for indices in groups:
            group = [examples[index] for index in indices]
            is_leak = len({example.split for example in group}) > 1
            names = " = ".join(f"{example.image_id} ({example.split}; {example.origin})" for example in group[:_MAX_NAMES])
            names += f" and {len(group) - _MAX_NAMES:,} more" if len(group) > _MAX_NAMES else ""
            cases[kind, is_leak].append(Case(group[0].origin, names, tuple(group)))
    leak = "Test images must not occur in training. Keep the image in one split."
    twice = "Training counts it twice. Join the captions, or remove one."
    return [
        *findings_of("error", "identical images in several splits", leak, cases["identical", True]),
        *findings_of("warning", "near-duplicate images in several splits", leak, cases["near", True]),
        *findings_of("warning", "identical images in one split", twice, cases["identical", False]),
        *findings_of("warning", "near-duplicate images in one split", twice, cases["near", False]),
    ]


def _difference(one: ImageInspection, other: ImageInspection) -> float:
    values = [np.frombuffer(image.thumbnail, np.uint8).astype(np.float64) for image in (one, other)]
    return float(np.abs(values[0] - values[1]).mean())


def _is_blank(image: ImageInspection) -> bool:
    return bool(np.frombuffer(image.thumbnail, np.uint8).std() < _BLANK_DEVIATION)


def _boxes_outside(decoded: Sequence[tuple[Example, ImageInspection]]) -> list[Finding]:
    """Return boxes that extend more than a pixel outside their image: those of another size, or of the image before rotation."""
    cases = []
    for example, image in decoded:
        for entry in example.objects:
            box = entry.box
            if min(box.x0, box.y0) < -1 or box.x1 > image.size[0] + 1 or box.y1 > image.size[1] + 1:
                text = f"{entry.name} at {box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g} in {_size_text(image)}"
                cases.append(_case(example, text))
                break
    advice = "They belong to another size of the image, or to the image before its EXIF rotation."
    return findings_of("warning", "boxes outside the image", advice, cases)


def _equal_sizes(decoded: Sequence[tuple[Example, ImageInspection]]) -> list[Finding]:
    """Return a note if all images have the same size: images of cameras do not, so these were resized or cropped."""
    sizes = Counter(image.size for _, image in decoded)
    if len(decoded) < _MIN_IMAGES_OF_ONE_SIZE or len(sizes) > 1:
        return []
    (width, height), count = sizes.most_common(1)[0]
    examples = tuple(example for example, _ in decoded[:4])
    cases = [Case("", f"all {count:,} images are {width} x {height}", examples)]
    return findings_of("note", "all images have the same size", "They were resized or cropped: aspect ratios are lost.", cases)


def _case(example: Example, text: str) -> Case:
    path = example.image if not isinstance(example.image, bytes | ShardMember) else None
    return Case(example.origin, f"{example.image_id!r}: {text}" if str(path) not in text else text, (example,))


def _size_text(image: ImageInspection) -> str:
    return f"{image.size[0]} x {image.size[1]} pixels"
