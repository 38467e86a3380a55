"""Captions of synthetic scenes: exact captions with the object of each word, and a judge of other captions.

A caption is right if it names every object (color and shape) once, states one true relation if there are two or more
objects, and states nothing false.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.scenes import COLORS, SHAPES, SIDE, Scene, SceneObject

RELATIONS = ("left of", "right of", "above", "below")
RELATION_PHRASES = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}
GRID_ROWS = ("top", "middle", "bottom")  # a position is a cell of a 3 x 3 grid over the image
GRID_COLUMNS = ("left", "center", "right")
MARGIN = 0.03 * SIDE  # pixels between two centers along an axis from which a relation is true

_OBJECT = re.compile(rf"(?:an?|the|one)? ?(?P<size>small|large)? ?(?P<color>{'|'.join(COLORS)}) (?P<shape>{'|'.join(SHAPES)})")
_POSITION = re.compile(rf"in the (?P<row>{'|'.join(GRID_ROWS)}) (?P<column>{'|'.join(GRID_COLUMNS)})")
_RELATION_PHRASE = re.compile("|".join(RELATION_PHRASES.values()))
_LINK = re.compile(rf"(?:, and|,|and|with|(?:is )?(?P<relation>{'|'.join(RELATIONS)}))(?= |$)")


@dataclass(frozen=True, slots=True)
class SceneWord:
    """caption[start:end] names the shape of object number `object`."""

    start: int
    end: int
    object: int


@dataclass(frozen=True, slots=True)
class SceneCaption:
    """A caption, and the character range of the name of each object."""

    text: str
    words: tuple[SceneWord, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a caption is right, and its first mistake."""

    right: bool
    reason: str


def captions_of(scene: Scene, rng: random.Random, *, positions: bool = False) -> list[SceneCaption]:
    """Return two exact captions of a scene, or four with `positions`.

    The first caption is the target of a captioner: largest object first, one relation. The second states sizes, or changes
    the order. With `positions`, the third states the position of every object and the fourth of some or none; both state a
    relation for every pair of neighbors. A model learns relations only after positions (docs/decisions.md).
    """
    order = list(range(len(scene.objects)))
    second = _caption(scene, order, with_sizes=True) if len(order) == 1 or rng.random() < 0.5 else None
    captions = [_caption(scene, order), second or _caption(scene, [1, 0, *rng.sample(order[2:], len(order) - 2)])]
    for share in (1.0, 0.4) if positions else ():
        with_position = [rng.random() < share for _ in order]
        shuffled = rng.sample(order, len(order))
        captions.append(_caption(scene, shuffled, with_position=with_position, num_related=len(order)))
    return captions


def relation(first: SceneObject, second: SceneObject) -> str:
    """Return the relation of two objects along the axis with the larger distance of their centers."""
    dx, dy = first.center[0] - second.center[0], first.center[1] - second.center[1]
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def is_true(name: str, first: SceneObject, second: SceneObject) -> bool:
    """Return whether `first` is `name` `second`, with at least MARGIN between their centers."""
    dx, dy = first.center[0] - second.center[0], first.center[1] - second.center[1]
    return {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[name] >= MARGIN


def is_in_position(row: str, column: str, entry: SceneObject) -> bool:
    """Return whether the center of an object is in this cell of the 3 x 3 grid, or less than MARGIN outside it."""
    for value, index in ((entry.center[1], GRID_ROWS.index(row)), (entry.center[0], GRID_COLUMNS.index(column))):
        if not index * SIDE / 3 - MARGIN <= value <= (index + 1) * SIDE / 3 + MARGIN:
            return False
    return True


def judge(caption: str, scene: Scene) -> Verdict:
    """Return whether a caption is right for a scene. A text that is not in the language of scene captions is wrong."""
    text = re.sub(r"\s+", " ", caption.lower()).strip().removesuffix(".").strip()
    text = re.sub(r"^there (is|are) ", "", text)
    mentions: list[SceneObject] = []
    num_relations = 0
    link = ""
    while True:
        match = _OBJECT.match(text)
        if match is None:
            return Verdict(False, f"cannot be parsed from {text!r}")
        mention = next((entry for entry in scene.objects if entry.pair == (match["color"], match["shape"])), None)
        if mention is None or mention in mentions:
            return Verdict(False, f"{'twice' if mention else 'not there'}: {match['color']} {match['shape']}")
        if match["size"] and match["size"] != mention.size:
            return Verdict(False, f"the {mention.color} {mention.shape} is {mention.size}")
        if link and not is_true(link, mentions[-1], mention):
            return Verdict(False, f"not {link}: {mentions[-1].shape}, {mention.shape}")
        num_relations += bool(link)
        mentions.append(mention)
        text = text[match.end() :].lstrip()
        position = _POSITION.match(text)
        if position is not None:
            if not is_in_position(position["row"], position["column"], mention):
                return Verdict(False, f"not {position.group()}: {mention.shape}")
            text = text[position.end() :].lstrip()
        phrase = _RELATION_PHRASE.match(text)
        if phrase is not None:  # "it" and "its" refer to the previous object
            name = next(name for name, words in RELATION_PHRASES.items() if words == phrase.group())
            if len(mentions) < 2 or not is_true(name, mention, mentions[-2]):
                return Verdict(False, f"not {phrase.group()}: {mention.shape}")
            num_relations += 1
            text = text[phrase.end() :].lstrip()
        if not text:
            break
        connection = _LINK.match(text)
        if connection is None:
            return Verdict(False, f"cannot be parsed from {text!r}")
        link = connection["relation"] or ""
        text = text[connection.end() :].lstrip()
    if len(mentions) < len(scene.objects):
        return Verdict(False, f"{len(scene.objects) - len(mentions)} objects are not named")
    if len(mentions) > 1 and not num_relations:
        return Verdict(False, "no relation is stated")
    return Verdict(True, "")


def _caption(
    scene: Scene, order: list[int], *, with_sizes: bool = False, with_position: Sequence[bool] = (), num_related: int = 2
) -> SceneCaption:
    """Return a caption that names the objects in `order`.

    `with_position[i]` adds the position of object order[i]. Each of the first `num_related` objects except the first has a
    relation to the one before it, after its own name: a model learns "a red circle and a blue square below it" several times
    sooner than "a red circle above a blue square", which states the relation before the second object.
    """
    text, words = "", []
    for number, index in enumerate(order):
        entry = scene.objects[index]
        if number > 0:
            text += " and " if number == len(order) - 1 else " , "
        size = f"{entry.size} " if with_sizes and entry.size != "medium" else ""
        article = "an" if (size + entry.color)[0] in "aeiou" else "a"
        text += f"{article} {size}{entry.color} "
        words.append(SceneWord(len(text), len(text) + len(entry.shape), index))
        text += entry.shape
        if with_position and with_position[number]:
            row, column = (min(2, int(value / SIDE * 3)) for value in entry.center[::-1])
            text += f" in the {GRID_ROWS[row]} {GRID_COLUMNS[column]}"
        if 0 < number < num_related:
            text += f" {RELATION_PHRASES[relation(entry, scene.objects[order[number - 1]])]}"
    return SceneCaption(text, tuple(words))
