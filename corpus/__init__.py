"""Captioned images: files on disk or synthetic scenes, read as examples, checked, shown and converted."""

import model  # isort: skip  # noqa: F401  before torch is imported

from corpus.augment import MAX_MAGNITUDE, Augmentation, augmented, is_mirrored, mirrored_caption
from corpus.check import check_data
from corpus.dataset import (
    SCENE_SPLITS,
    CaptionDataset,
    CaptionedImage,
    is_synthetic,
    normalize_caption,
    open_dataset,
)
from corpus.errors import DataError, ErrorLog
from corpus.example import Example, NamedBox, ShardMember, matches_language
from corpus.findings import Report
from corpus.formats import FORMATS, Format, convert, json_document, read_data, read_text, stream_data
from corpus.identical import identical_groups
from corpus.scene_captions import SceneCaption, SceneWord, Verdict, captions_of, judge
from corpus.scenes import COLORS, SHAPES, UNSEEN_PAIRS, Scene, SceneObject, draw_scene
from corpus.usable import Problem, usable_entries

__all__ = [
    "COLORS",
    "FORMATS",
    "MAX_MAGNITUDE",
    "SCENE_SPLITS",
    "SHAPES",
    "UNSEEN_PAIRS",
    "Augmentation",
    "CaptionDataset",
    "CaptionedImage",
    "DataError",
    "ErrorLog",
    "Example",
    "Format",
    "NamedBox",
    "Problem",
    "Report",
    "Scene",
    "SceneCaption",
    "SceneObject",
    "SceneWord",
    "ShardMember",
    "Verdict",
    "augmented",
    "captions_of",
    "check_data",
    "convert",
    "draw_scene",
    "identical_groups",
    "is_mirrored",
    "is_synthetic",
    "json_document",
    "judge",
    "matches_language",
    "mirrored_caption",
    "normalize_caption",
    "open_dataset",
    "read_data",
    "read_text",
    "stream_data",
    "usable_entries",
]
