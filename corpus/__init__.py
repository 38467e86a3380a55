"""Captioned pictures, on disk or drawn, as examples."""

from corpus.augment import augmented, is_mirrored, mirrored_caption
from corpus.dataset import OWN_DATA, SCENE_SPLITS, Captioned, Source, open_source, plain_caption
from corpus.errors import DataError
from corpus.example import Example, NamedBox
from corpus.formats import read_data
from corpus.scene_captions import SceneCaption, SceneWord, Verdict, captions_of, judge
from corpus.scenes import UNSEEN_PAIRS, Scene, SceneObject, draw_scene

__all__ = [
    "OWN_DATA",
    "SCENE_SPLITS",
    "UNSEEN_PAIRS",
    "Captioned",
    "DataError",
    "Example",
    "NamedBox",
    "Scene",
    "SceneCaption",
    "SceneObject",
    "SceneWord",
    "Source",
    "Verdict",
    "augmented",
    "captions_of",
    "draw_scene",
    "is_mirrored",
    "judge",
    "mirrored_caption",
    "open_source",
    "plain_caption",
    "read_data",
]
