"""Phrases with coordinates: what the tokens of a caption name, and where it is.

Coordinates are tokens after the phrase that they belong to: four of a rectangle, any number of rectangles, or eight of four
corners. A coordinate is the middle of its bin (as in Florence-2's own code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import PromptEncoderConfig
from model.geometry import Box
from model.tasks import Output


@dataclass(frozen=True, slots=True)
class LocatedPhrase:
    """tokens[start:end] name what is in `region`; its `count` coordinates end at `stop`, after those of other rectangles.

    `polygon` has the corners x0, y0, x1, y1, … where they are not those of a rectangle; pixels of the upright image.
    """

    start: int
    end: int
    stop: int
    region: Box
    polygon: tuple[int, ...] = ()
    count: int = 4  # coordinates


def located_phrases(
    tokens: Sequence[int],
    special: frozenset[int],
    config: PromptEncoderConfig,
    output: Output,
    size: tuple[int, int],
) -> list[LocatedPhrase]:
    """Return the phrases of a caption, in order; one that has several rectangles is returned for each.

    `special` are ids that stand for no text, `size` is the image's (width, height). Phrases without coordinates are left out,
    and so are coordinates without a phrase, unless they are proposals.
    """
    first, last = config.first_location_id, config.first_location_id + config.num_locations
    count = 8 if output == "quads" else 4
    phrases: list[LocatedPhrase] = []
    position = 0
    while position < len(tokens):
        start = position
        while position < len(tokens) and tokens[position] not in special:
            position += 1
        end = position
        while position < len(tokens) and first <= tokens[position] < last:
            position += 1
        coordinates = [index - first for index in tokens[end:position]]
        if end == position:
            position += 1  # another special token ends the phrase
            continue
        if end > start or output == "proposals":
            whole = range(0, len(coordinates) - count + 1, count)
            phrases += [_phrase(start, end, end + at, coordinates[at : at + count], config.num_locations, size) for at in whole]
    return phrases


def _phrase(start: int, end: int, at: int, bins: list[int], num_bins: int, size: tuple[int, int]) -> LocatedPhrase:
    pixels = tuple((2 * index + 1) * size[axis % 2] // (2 * num_bins) for axis, index in enumerate(bins))
    xs, ys = pixels[::2], pixels[1::2]
    region = Box(min(xs), min(ys), max(xs), max(ys))
    return LocatedPhrase(start, end, at + len(bins), region, pixels if len(pixels) > 4 else (), len(bins))
