"""The words for the 80 COCO classes in captions: the name of the class, its plural, and common synonyms."""

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


def class_words(name: str) -> list[str]:
    """Return the lower-case words for a class, its name first."""
    return [name, f"{name}s", f"{name}es", *_SYNONYMS.get(name, "").split()]


def find_class_mention(name: str, text: str) -> int | None:
    """Return the offset of the first word for a class in a text (of a phrase, its last word), or None."""
    phrases = "|".join(re.escape(phrase) for phrase in sorted(class_words(name), key=len, reverse=True))
    match = re.search(rf"\b(?:{phrases})\b", text.lower())
    return None if match is None else match.end() - len(match.group().split()[-1])
