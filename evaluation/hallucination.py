"""Objects that captions name and pictures do not show: CHAIR (Rohrbach et al. 2018) on photographs with boxes, exact on scenes.

The words below are our own for the 80 classes of COCO; the list of CHAIR's authors is read with `read_synonyms`. What a
picture shows are the classes of its boxes and those that its references name, as in section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import COLORS, SHAPES, DataError, Scene

_PEOPLE = (
    "people man men woman women boy girl child children kid baby toddler infant lady guy gentleman adult teenager player rider "
    "skier surfer skateboarder snowboarder skater batter pitcher catcher cyclist bicyclist biker worker chef cook officer "
    "policeman driver passenger student bride groom couple family crowd male female mother father swimmer climber hiker "
    "dancer runner performer fisherman soldier athlete pedestrian"
)
_WORDS: dict[str, str] = {  # what else a class is called; words of two parts are joined by _
    "person": _PEOPLE,
    "bicycle": "bike tricycle",
    "car": "automobile van sedan taxi cab jeep suv minivan",
    "motorcycle": "motorbike scooter moped motor_bike dirt_bike",
    "airplane": "plane aeroplane jet aircraft airliner",
    "bus": "minibus",
    "train": "locomotive",
    "truck": "lorry pickup firetruck",
    "boat": "ship sailboat canoe kayak raft yacht motorboat speedboat rowboat ferry",
    "traffic light": "street_light stoplight traffic_signal",
    "fire hydrant": "hydrant",
    "stop sign": "street_sign",
    "parking meter": "",
    "bench": "",
    "bird": "duck goose geese pigeon seagull gull owl parrot swan eagle ostrich",
    "cat": "kitten",
    "dog": "puppy puppies",
    "horse": "pony ponies foal",
    "sheep": "lamb goat ram",
    "cow": "cattle bull ox oxen",
    "elephant": "",
    "bear": "panda",
    "zebra": "",
    "giraffe": "",
    "backpack": "knapsack rucksack",
    "umbrella": "parasol",
    "handbag": "purse",
    "tie": "necktie bow_tie",
    "suitcase": "luggage briefcase",
    "frisbee": "",
    "skis": "ski",
    "snowboard": "",
    "sports ball": "ball football basketball",
    "kite": "",
    "baseball bat": "",
    "baseball glove": "baseball_mitt",
    "skateboard": "",
    "surfboard": "surf_board",
    "tennis racket": "racket racquet",
    "bottle": "",
    "wine glass": "",
    "cup": "mug",
    "fork": "",
    "knife": "knives",
    "spoon": "",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "burger hamburger",
    "orange": "",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog",
    "pizza": "",
    "donut": "doughnut",
    "cake": "cupcake",
    "chair": "stool armchair",
    "couch": "sofa",
    "potted plant": "houseplant",
    "bed": "",
    "dining table": "table desk",
    "toilet": "",
    "tv": "television monitor tv_set",
    "laptop": "",
    "mouse": "mice",
    "remote": "",
    "keyboard": "",
    "cell phone": "phone cellphone smartphone",
    "microwave": "",
    "oven": "stove",
    "toaster": "",
    "sink": "",
    "refrigerator": "fridge",
    "book": "",
    "clock": "",
    "vase": "",
    "scissors": "",
    "teddy bear": "teddy",
    "hair drier": "hair_dryer",
    "toothbrush": "",
}
# Phrases in which a class's word names something else, or a colour.
_NEUTRAL = (
    "home plate|train (?:tracks?|station)|bus stop|bear hug|hot air balloon|tie dyed?|remote (?=area|beach|place|location)|"
    "(?:baby|adult) (?=elephant|giraffe|bear|bird|zebra|sheep|cow|horse|cat|dog)|passenger (?=jet|train|plane)|"
    "orange (?=shirt|jacket|vest|hat|suit|dress|uniform|coat|cap|life|and|helmet|top|shorts|kayak|pants)"
)


@dataclass(frozen=True, slots=True)
class Hallucination:
    """CHAIR's two shares, and of how many."""

    mentions: int  # of objects in all captions
    invented: int
    captions: int
    spoilt: int  # captions with an invented object

    def as_json(self) -> dict[str, float | int]:
        """Return the figures with the names that papers give them."""
        return {
            "CHAIRi": self.invented / max(1, self.mentions),
            "CHAIRs": self.spoilt / max(1, self.captions),
            "objects named": self.mentions,
            "captions": self.captions,
        }


class Synonyms:
    """Words that name classes; `named` finds the classes in a text."""

    def __init__(self, words: Mapping[str, Collection[str]]) -> None:
        self._class_of = {form: name for name, others in words.items() for word in (name, *others) for form in _forms(word)}
        self._class_of |= {name: name for name in words}  # a class's own name is never another's synonym
        longest_first = sorted(self._class_of, key=lambda word: (-len(word), word))
        self._pattern = re.compile(rf"\b(?:(?P<neutral>{_NEUTRAL})|(?P<word>{'|'.join(map(re.escape, longest_first))}))\b")

    def named(self, text: str) -> list[str]:
        """Return the classes that a text names, in its order, as often as it does; the longest phrase counts."""
        found = (match["word"] for match in self._pattern.finditer(text.lower()))
        return [self._class_of[word] for word in found if word]


def own_synonyms() -> Synonyms:
    """Return our own words for the 80 classes of COCO."""
    return Synonyms({name: [word.replace("_", " ") for word in words.split()] for name, words in _WORDS.items()})


def read_synonyms(path: Path) -> Synonyms:
    """Read a list in the layout of CHAIR's authors: a class a line, its words after it, separated by commas."""
    try:
        lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); it must be a class a line, words separated by commas") from error
    if not lines:
        raise DataError(f"{path} holds no class; it must be a class a line, words separated by commas")
    return Synonyms({line[0].strip(): [word.strip() for word in line[1:] if word.strip()] for line in lines})


def invented_objects(
    captions: Mapping[str, str],
    objects: Mapping[str, Collection[str]],
    references: Mapping[str, Sequence[str]],
    synonyms: Synonyms | None = None,
) -> Hallucination:
    """Count what captions name and pictures do not show; `objects` are the boxed classes of those images that have boxes.

    A box's class is one of the 80 or a word for it; boxes of other things count for nothing.
    """
    words = synonyms or own_synonyms()
    counts = []
    for image in objects:
        told = [*objects[image], *references.get(image, ())]
        shown = {name for text in told for name in words.named(text)}
        named = words.named(captions[image])
        counts.append((len(named), sum(name not in shown for name in named)))
    return _summed(counts)


def invented_in_scenes(captions: Sequence[str], scenes: Sequence[Scene]) -> Hallucination:
    """Count colour-shape pairs that captions of drawn scenes name and the scenes do not hold: exact, nothing is left unsaid."""
    pairs = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
    counts = []
    for text, scene in zip(captions, scenes, strict=True):
        shown = {(entry.color, entry.shape) for entry in scene.objects}
        named = pairs.findall(text)
        counts.append((len(named), sum(pair not in shown for pair in named)))
    return _summed(counts)


def _summed(counts: Sequence[tuple[int, int]]) -> Hallucination:
    named, invented = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return Hallucination(named, invented, len(counts), sum(count > 0 for _, count in counts))


def _forms(word: str) -> set[str]:
    """Return a word and its plural: regular, or men of man."""
    if word.endswith("man"):
        return {word, word[:-3] + "men"}
    plural = word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + ("es" if re.search(r"(s|x|ch|sh)$", word) else "s")
    return {word, plural}
