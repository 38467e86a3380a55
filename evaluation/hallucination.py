"""Objects that captions mention and images do not show: CHAIR (Rohrbach et al. 2018) from boxes, exact counts on scenes.

The word list is this project's for the 80 COCO classes; `read_synonyms` reads the list of CHAIR's authors. An image shows the
classes of its boxes and those that its references mention, as in section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import COLORS, SHAPES, DataError, Scene, read_text

_PEOPLE = (
    "people man men woman women boy girl child children kid baby toddler infant lady guy gentleman adult teenager player rider "
    "skier surfer skateboarder snowboarder skater batter pitcher catcher cyclist bicyclist biker worker chef cook officer "
    "policeman driver passenger student bride groom couple family crowd male female mother father swimmer climber hiker "
    "dancer runner performer fisherman soldier athlete pedestrian"
)
_COCO_SYNONYMS: dict[str, str] = {  # synonyms of each class; the words of a phrase are joined by _
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
# Phrases in which the word of a class means something else, or a color.
_NEUTRAL = (
    "home plate|train (?:tracks?|station)|bus stop|bear hug|hot air balloon|tie dyed?|remote (?=area|beach|place|location)|"
    "(?:baby|adult) (?=elephant|giraffe|bear|bird|zebra|sheep|cow|horse|cat|dog)|passenger (?=jet|train|plane)|"
    "orange (?=shirt|jacket|vest|hat|suit|dress|uniform|coat|cap|life|and|helmet|top|shorts|kayak|pants)"
)


@dataclass(frozen=True, slots=True)
class Hallucination:
    """Counts of CHAIR: object mentions and captions, and how many of them are hallucinated."""

    mentions: int  # of objects in all captions
    hallucinated_mentions: int
    captions: int
    hallucinated_captions: int  # captions with at least one hallucinated mention

    def as_json(self) -> dict[str, float | int]:
        """Return the rates under the names of the paper, with the counts that they are computed from."""
        return {
            "CHAIRi": self.hallucinated_mentions / max(1, self.mentions),
            "CHAIRs": self.hallucinated_captions / max(1, self.captions),
            "mentions": self.mentions,
            "captions": self.captions,
        }


class Synonyms:
    """Words for object classes; `mentions` returns the classes that a text mentions."""

    def __init__(self, words: Mapping[str, Collection[str]]) -> None:
        """`words` are the synonyms of each class; plurals are added."""
        self._class_of = {form: name for name, others in words.items() for word in (name, *others) for form in _forms(word)}
        self._class_of |= {name: name for name in words}  # the name of a class is never a synonym of another class
        longest_first = sorted(self._class_of, key=lambda word: (-len(word), word))
        self._pattern = re.compile(rf"\b(?:(?P<neutral>{_NEUTRAL})|(?P<word>{'|'.join(map(re.escape, longest_first))}))\b")

    def mentions(self, text: str) -> list[str]:
        """Return the class of each mention in a text, in its order; of overlapping phrases the longest one counts."""
        return [name for _, _, name in self.spans(text)]

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Return (start, end, class) of each mention; offsets are those of the lower-cased text."""
        matches = self._pattern.finditer(text.lower())
        return [(*match.span(), self._class_of[match["word"]]) for match in matches if match["word"]]


def coco_synonyms() -> Synonyms:
    """Return this project's words for the 80 COCO classes."""
    return Synonyms({name: [word.replace("_", " ") for word in words.split()] for name, words in _COCO_SYNONYMS.items()})


def read_synonyms(path: Path) -> Synonyms:
    """Read a list in the layout of CHAIR's authors: one line per class, its words separated by commas.

    Raises DataError if the file cannot be read or is empty.
    """
    lines = [line.split(",") for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} has no classes; expected one line per class, words separated by commas")
    return Synonyms({line[0].strip(): [word.strip() for word in line[1:] if word.strip()] for line in lines})


def count_hallucinations(
    captions: Mapping[str, str],
    objects: Mapping[str, Collection[str]],
    references: Mapping[str, Sequence[str]],
    synonyms: Synonyms | None = None,
) -> Hallucination:
    """Count objects that captions mention and images do not show.

    `objects` are the classes of the boxes, of each image that has boxes; other images are not counted. A box's class is a COCO
    class or a word for one; boxes of other classes are ignored.
    """
    words = synonyms or coco_synonyms()
    counts = []
    for image in objects:
        evidence = [*objects[image], *references.get(image, ())]
        shown = {name for text in evidence for name in words.mentions(text)}
        mentions = words.mentions(captions[image])
        counts.append((len(mentions), sum(name not in shown for name in mentions)))
    return _sum_counts(counts)


def count_scene_hallucinations(captions: Sequence[str], scenes: Sequence[Scene]) -> Hallucination:
    """Count pairs of color and shape that captions of synthetic scenes mention and the scenes do not contain (exact)."""
    pairs = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
    counts = []
    for text, scene in zip(captions, scenes, strict=True):
        shown = {(entry.color, entry.shape) for entry in scene.objects}
        mentions = pairs.findall(text)
        counts.append((len(mentions), sum(pair not in shown for pair in mentions)))
    return _sum_counts(counts)


def _sum_counts(counts: Sequence[tuple[int, int]]) -> Hallucination:
    """Return the sums of mentions and hallucinated mentions, one pair per caption."""
    mentions, hallucinated = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return Hallucination(mentions, hallucinated, len(counts), sum(count > 0 for _, count in counts))


def _forms(word: str) -> set[str]:
    """Return a word and its plural: the regular one, or "men" for "man"."""
    if word.endswith("man"):
        return {word, word[:-3] + "men"}
    plural = word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + ("es" if re.search(r"(s|x|ch|sh)$", word) else "s")
    return {word, plural}
