"""What is said about a drawn scene: its exact captions, which word means which object, and the judge of other captions.

A caption is right if it names every object (colour and shape) once, gives one true relation where there are two or more,
and says nothing false.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.scenes import COLOURS, SHAPES, SIDE, Scene, SceneObject

RELATIONS = ("left of", "right of", "above", "below")
CLEAR = 0.03 * SIDE  # pixels by which one centre must lie beyond the other for a relation to be true

_MENTION = re.compile(rf"(?:an?|the|one)? ?(?P<size>small|large)? ?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
PLACES = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}
_NINTH = re.compile(rf"in the (?P<row>{'|'.join(ROWS)}) (?P<column>{'|'.join(COLUMNS)})")
_PLACE = re.compile("|".join(PLACES.values()))
_LINK = re.compile(rf"(?:, and|,|and|with|(?:is )?(?P<relation>{'|'.join(RELATIONS)}))(?= |$)")


@dataclass(frozen=True, slots=True)
class SceneWord:
    """caption[start:end] names the shape of object number `object`."""

    start: int
    end: int
    object: int


@dataclass(frozen=True, slots=True)
class SceneCaption:
    """A caption and where it names which object."""

    text: str
    words: tuple[SceneWord, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a caption is right, and what is wrong with it."""

    right: bool
    reason: str


def captions_of(scene: Scene, dice: random.Random, *, places: bool = False) -> list[SceneCaption]:
    """Return exact captions of a scene: two, and with `places` two more.

    The first is what a captioner should say: largest object first, one relation. The second tells sizes, or turns the order
    round. With `places` follow one with every object's place and one with places here and there, both with a relation for
    every neighbour: where single things lie has to be learnt before relations can be (docs/decisions.md).
    """
    order = list(range(len(scene.objects)))
    second = _caption(scene, order, sized=True) if len(order) == 1 or dice.random() < 0.5 else None
    captions = [_caption(scene, order), second or _caption(scene, [1, 0, *dice.sample(order[2:], len(order) - 2)])]
    for share in (1.0, 0.4) if places else ():
        placed = [dice.random() < share for _ in order]
        captions.append(_caption(scene, dice.sample(order, len(order)), placed=placed, related=len(order)))
    return captions


def relation(first: SceneObject, second: SceneObject) -> str:
    """Return the relation of two objects along the axis on which they lie further apart."""
    dx, dy = first.centre[0] - second.centre[0], first.centre[1] - second.centre[1]
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def is_true(name: str, first: SceneObject, second: SceneObject) -> bool:
    """Return whether `first` is `name` `second`, by a clear margin between their centres."""
    dx, dy = first.centre[0] - second.centre[0], first.centre[1] - second.centre[1]
    return {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[name] >= CLEAR


def lies_in(row: str, column: str, entry: SceneObject) -> bool:
    """Return whether the centre lies in this ninth of the picture, or so near its edge that either side may be said."""
    for value, place in ((entry.centre[1], ROWS.index(row)), (entry.centre[0], COLUMNS.index(column))):
        if not place * SIDE / 3 - CLEAR <= value <= (place + 1) * SIDE / 3 + CLEAR:
            return False
    return True


def judge(caption: str, scene: Scene) -> Verdict:
    """Judge a caption against what was drawn."""
    text = re.sub(r"\s+", " ", caption.lower()).strip().removesuffix(".").strip()
    text = re.sub(r"^there (is|are) ", "", text)
    mentions: list[SceneObject] = []
    relations = 0
    link = ""
    while True:
        found = _MENTION.match(text)
        if found is None:
            return Verdict(False, f"cannot be read from {text!r}")
        named = next((entry for entry in scene.objects if entry.pair == (found["colour"], found["shape"])), None)
        if named is None or named in mentions:
            return Verdict(False, f"{'twice' if named else 'not there'}: {found['colour']} {found['shape']}")
        if found["size"] and found["size"] != named.size:
            return Verdict(False, f"the {named.colour} {named.shape} is {named.size}")
        if link and not is_true(link, mentions[-1], named):
            return Verdict(False, f"not {link}: {mentions[-1].shape}, {named.shape}")
        relations += bool(link)
        mentions.append(named)
        text = text[found.end() :].lstrip()
        ninth = _NINTH.match(text)
        if ninth is not None:
            if not lies_in(ninth["row"], ninth["column"], named):
                return Verdict(False, f"not {ninth.group()}: {named.shape}")
            text = text[ninth.end() :].lstrip()
        place = _PLACE.match(text)
        if place is not None:  # "it" is what was named before
            name = next(name for name, phrase in PLACES.items() if phrase == place.group())
            if len(mentions) < 2 or not is_true(name, named, mentions[-2]):
                return Verdict(False, f"not {place.group()}: {named.shape}")
            relations += 1
            text = text[place.end() :].lstrip()
        if not text:
            break
        joint = _LINK.match(text)
        if joint is None:
            return Verdict(False, f"cannot be read from {text!r}")
        link = joint["relation"] or ""
        text = text[joint.end() :].lstrip()
    if len(mentions) < len(scene.objects):
        return Verdict(False, f"{len(scene.objects) - len(mentions)} objects are not named")
    if len(mentions) > 1 and not relations:
        return Verdict(False, "no relation is given")
    return Verdict(True, "")


def _caption(
    scene: Scene, order: list[int], *, sized: bool = False, placed: Sequence[bool] = (), related: int = 2
) -> SceneCaption:
    """Name the objects in `order`, and where `placed` the ninth of the picture in which they lie.

    Of the first `related` ones each is told relative to the one before, once both have been named: "a red circle and a
    blue square below it" is learnt several times sooner than "a red circle above a blue square", whose relation has to be
    known before the second object is named.
    """
    text, words = "", []
    for place, index in enumerate(order):
        entry = scene.objects[index]
        if place > 0:
            text += " and " if place == len(order) - 1 else " , "
        size = f"{entry.size} " if sized and entry.size != "medium" else ""
        article = "an" if (size + entry.colour)[0] in "aeiou" else "a"
        text += f"{article} {size}{entry.colour} "
        words.append(SceneWord(len(text), len(text) + len(entry.shape), index))
        text += entry.shape
        if placed and placed[place]:
            row, column = (min(2, int(value / SIDE * 3)) for value in entry.centre[::-1])
            text += f" in the {ROWS[row]} {COLUMNS[column]}"
        if 0 < place < related:
            text += f" {PLACES[relation(entry, scene.objects[order[place - 1]])]}"
    return SceneCaption(text, tuple(words))
