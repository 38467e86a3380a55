"""The words by which captions name the 80 COCO classes: the class itself, its plural, and the common synonyms."""

from __future__ import annotations

import re

_SYNONYMS = {
    "person": (
        "man men woman women boy boys girl girls child children kid kids people lady ladies guy guys baby toddler player "
        "players skier skiers surfer surfers skateboarder snowboarder batter rider riders"
    ),
    "airplane": "plane planes jet jets aircraft",
    "bicycle": "bike bikes",
    "motorcycle": "motorbike motorbikes",
    "boat": "ship ships",
    "car": "vehicle vehicles",
    "couch": "sofa sofas",
    "tv": "television televisions monitor monitors",
    "cell phone": "cellphone phone phones",
    "dining table": "table tables",
    "potted plant": "plant plants",
    "sports ball": "ball balls",
    "wine glass": "glass glasses",
    "teddy bear": "bear bears",
    "traffic light": "light lights",
    "fire hydrant": "hydrant hydrants",
    "stop sign": "sign signs",
    "tennis racket": "racket racquet",
    "baseball bat": "bat bats",
    "baseball glove": "glove mitt",
    "donut": "doughnut doughnuts",
    "hot dog": "hotdog hotdogs",
    "refrigerator": "fridge",
    "knife": "knives",
    "dog": "puppy puppies",
    "cat": "kitten kittens",
    "cow": "cattle calf",
    "sheep": "lamb lambs",
    "horse": "pony",
}


def words_of(name: str) -> list[str]:
    """Return what names a class in lower-case text, the exact name first."""
    return [name, f"{name}s", f"{name}es", *_SYNONYMS.get(name, "").split()]


def named_at(name: str, text: str) -> int | None:
    """Return where in a text the first word stands that names the class (of a name of two words, its last), or None."""
    phrases = "|".join(re.escape(phrase) for phrase in sorted(words_of(name), key=len, reverse=True))
    found = re.search(rf"\b(?:{phrases})\b", text.lower())
    return None if found is None else found.end() - len(found.group().split()[-1])
