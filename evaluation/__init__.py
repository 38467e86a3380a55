"""Every number that is published is made here."""

from evaluation.baselines import best_constant, wrong_pictures
from evaluation.captions import CaptionScores, score_captions, tokenised
from evaluation.generate import caption_pictures, explain_pictures, png_bytes
from evaluation.heads import SELECTION_SERIES, choose_heads, objects_of_photographs, objects_of_scenes, read_heads
from evaluation.maps import Pointing, photograph_pointing, scene_pointing
from evaluation.scenes import held_out_scenes, judge_scenes

__all__ = [
    "SELECTION_SERIES",
    "CaptionScores",
    "Pointing",
    "best_constant",
    "caption_pictures",
    "choose_heads",
    "explain_pictures",
    "held_out_scenes",
    "judge_scenes",
    "objects_of_photographs",
    "objects_of_scenes",
    "photograph_pointing",
    "png_bytes",
    "read_heads",
    "scene_pointing",
    "score_captions",
    "tokenised",
    "wrong_pictures",
]
