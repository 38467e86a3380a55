"""What is wrong with pictures: missing, broken, tiny, huge, of extreme shape, turned by EXIF, blank, the same as another."""

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

from corpus.dataset import LOCAL_IMAGE_LIMITS
from corpus.duplicates import groups, near_links
from corpus.example import Example, Member
from corpus.findings import Case, Finding, finding
from model import ImageError, decode_image

TINY = 64  # pixels of the shorter edge
HUGE = 50_000_000  # pixels
EXTREME = 4.0  # longer edge / shorter edge
NEAR = 6  # bits of 64 that nearly equal pictures may differ in
_BLANK = 2.0  # standard deviation of grey values, of 255
_ALIKE = 12.0  # mean difference of two thumbnails, of 255, that nearly equal pictures stay below
_AT_ONCE = 256  # pictures in flight
_NAMED = 8  # pictures of a group
_THUMBNAIL = 16  # pixels


@dataclass(frozen=True, slots=True)
class Look:
    """What one picture's bytes say."""

    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    phash: int = 0
    thumbnail: bytes = b""  # 16 x 16 grey values
    state: Literal["sound", "missing", "broken"] = "sound"
    error: str = ""


def look_at(examples: Iterable[Example]) -> Iterator[tuple[Example, Look]]:
    """Decode every picture, some in parallel, and yield what it says in the order of the examples."""
    source = iter(examples)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while part := list(islice(source, _AT_ONCE)):
            yield from zip(part, pool.map(_look, part), strict=True)


def check_pictures(examples: Sequence[Example], looks: Sequence[Look]) -> list[Finding]:
    """Return what is worth knowing about the pictures of examples."""
    both = list(zip(examples, looks, strict=True))
    sound = [(example, look) for example, look in both if look.state == "sound"]
    missing, broken = (
        [_case(example, look.error) for example, look in both if look.state == state] for state in ("missing", "broken")
    )
    tiny = [_case(example, _told(look)) for example, look in sound if min(look.size) < TINY]
    huge = [_case(example, _told(look)) for example, look in sound if look.size[0] * look.size[1] > HUGE]
    extreme = [_case(example, _told(look)) for example, look in sound if max(look.size) > EXTREME * min(look.size)]
    turned = [_case(example, f"orientation {look.orientation}") for example, look in sound if look.orientation != 1]
    blank = [_case(example, _told(look)) for example, look in sound if _is_blank(look)]
    return [
        *finding("error", "pictures missing", "Put them where the message says, or take their records out.", missing),
        *finding("error", "pictures broken", "Fetch them again, or take their records out.", broken),
        *_duplicates([example for example, _ in sound], [look for _, look in sound]),
        *finding(
            "warning", "blank pictures", "One colour all over: often what a server sends for a picture that is gone.", blank
        ),
        *finding("warning", f"tiny pictures, an edge under {TINY} pixels", "Thumbnails teach little.", tiny),
        *finding(
            "warning", f"huge pictures, over {HUGE // 1_000_000} million pixels", "Shrink them: they cost time and memory.", huge
        ),
        *finding("warning", f"extreme shapes, over {EXTREME:.0f} to 1", "They are squashed to a square.", extreme),
        *finding(
            "note", "pictures turned by EXIF", "They are read upright here; boxes must be those of the upright picture.", turned
        ),
        *_one_size(sound),
    ]


def _look(example: Example) -> Look:
    try:
        data = example.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        told = f"{example.place} cannot be read ({reason})"
        if isinstance(error, FileNotFoundError):
            told = f"{example.place} is not there, nor in images/ or a folder named like the split beside it"
        return Look(state="missing", error=told)
    try:
        picture = decode_image(data, LOCAL_IMAGE_LIMITS, min_size=(64, 64))  # a JPEG is decoded small
        grey = picture.upright().convert("L")
    except ImageError as error:
        return Look(state="broken", error=f"{example.place}: {error}")
    except Exception as error:  # a frame that fails when it is converted
        return Look(state="broken", error=f"{example.place}: {error}")
    bits = imagehash.phash(grey).hash.ravel()
    return Look(
        hashlib.sha256(data).digest(),
        picture.upright_size,
        picture.orientation,
        int(np.packbits(bits).view(">u8")[0]),
        grey.resize((_THUMBNAIL, _THUMBNAIL)).tobytes(),
    )


def _duplicates(examples: Sequence[Example], looks: Sequence[Look]) -> list[Finding]:
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        same[look.digest].append(place)
    exact = [places for places in same.values() if len(places) > 1]
    firsts = [places[0] for places in same.values() if not _is_blank(looks[places[0]])]  # one of each
    hashes = np.array([looks[place].phash for place in firsts], np.uint64)
    links = near_links(hashes, NEAR, lambda one, other: _difference(looks[firsts[one]], looks[firsts[other]]) < _ALIKE)
    near = groups([(firsts[one], firsts[other]) for one, other in links])
    found: dict[tuple[str, bool], list[Case]] = defaultdict(list)
    for kind, rows in (("the same picture", exact), ("nearly the same picture", near)):
        for places in rows:
            several = [examples[place] for place in places]
            across = len({example.split for example in several}) > 1
            names = " = ".join(f"{example.image_id} ({example.split}; {example.where})" for example in several[:_NAMED])
            names += f" and {len(several) - _NAMED:,} more" if len(several) > _NAMED else ""
            found[kind, across].append(Case(several[0].where, names, tuple(several)))
    leak = "What is tested on was trained on: keep it in one split."
    twice = "It counts twice in training; join the captions, or take one out."
    return [
        *finding("error", "the same picture in several splits", leak, found["the same picture", True]),
        *finding("warning", "nearly the same picture in several splits", leak, found["nearly the same picture", True]),
        *finding("warning", "the same picture twice in a split", twice, found["the same picture", False]),
        *finding("warning", "nearly the same picture twice in a split", twice, found["nearly the same picture", False]),
    ]


def _difference(one: Look, other: Look) -> float:
    values = [np.frombuffer(look.thumbnail, np.uint8).astype(np.float64) for look in (one, other)]
    return float(np.abs(values[0] - values[1]).mean())


def _is_blank(look: Look) -> bool:
    return bool(np.frombuffer(look.thumbnail, np.uint8).std() < _BLANK)


def _boxes_outside(sound: Sequence[tuple[Example, Look]]) -> list[Finding]:
    """Return boxes that reach out of their picture by more than a pixel: of another size of it, or not turned with it."""
    cases = []
    for example, look in sound:
        for entry in example.objects:
            box = entry.box
            if min(box.x0, box.y0) < -1 or box.x1 > look.size[0] + 1 or box.y1 > look.size[1] + 1:
                told = f"{entry.name} at {box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g} in {_told(look)}"
                cases.append(_case(example, told))
                break
    return finding("warning", "boxes outside the picture", "They are of another size of it, or of the unturned picture.", cases)


def _one_size(sound: Sequence[tuple[Example, Look]]) -> list[Finding]:
    """Return a note where all pictures have one size: cameras do not, so they were squashed or cropped."""
    sizes = Counter(look.size for _, look in sound)
    if len(sound) < 20 or len(sizes) > 1:
        return []
    (width, height), count = sizes.most_common(1)[0]
    shown = tuple(example for example, _ in sound[:4])
    text = f"all {count:,} pictures are {width} x {height}"
    return finding(
        "note", "one size for all pictures", "They were squashed or cropped before: shapes are lost.", [Case("", text, shown)]
    )


def _case(example: Example, text: str) -> Case:
    place = example.image if not isinstance(example.image, bytes | Member) else None
    told = f"{example.image_id!r}: {text}" if str(place) not in text else text
    return Case(example.where, told, (example,))


def _told(look: Look) -> str:
    return f"{look.size[0]} x {look.size[1]} pixels"
