"""Captioned pictures, on disk or drawn, as examples."""

from corpus.augment import augmented, is_mirrored, mirrored_caption
from corpus.check import check_data
from corpus.dataset import OWN_DATA, SCENE_SPLITS, Captioned, Source, is_drawn, open_source, plain_caption
from corpus.errors import DataError, Faults
from corpus.example import Example, Member, NamedBox, speaks
from corpus.findings import Report
from corpus.formats import FORMATS, Format, convert, read_data, stream_data
from corpus.scene_captions import SceneCaption, SceneWord, Verdict, captions_of, judge
from corpus.scenes import COLOURS, SHAPES, UNSEEN_PAIRS, Scene, SceneObject, draw_scene

__all__ = [
    "COLOURS",
    "FORMATS",
    "OWN_DATA",
    "SCENE_SPLITS",
    "SHAPES",
    "UNSEEN_PAIRS",
    "Captioned",
    "DataError",
    "Example",
    "Faults",
    "Format",
    "Member",
    "NamedBox",
    "Report",
    "Scene",
    "SceneCaption",
    "SceneObject",
    "SceneWord",
    "Source",
    "Verdict",
    "augmented",
    "captions_of",
    "check_data",
    "convert",
    "draw_scene",
    "is_drawn",
    "is_mirrored",
    "judge",
    "mirrored_caption",
    "open_source",
    "plain_caption",
    "read_data",
    "speaks",
    "stream_data",
]
