"""Every number that is published is made here."""

from evaluation.baselines import best_constant, wrong_pictures
from evaluation.captions import CaptionScores, score_captions, tokenised
from evaluation.generate import caption_pictures, explain_pictures, png_bytes
from evaluation.golden import golden_figures, kendall_tau_c, tokens_in_order
from evaluation.heads import SELECTION_SERIES, choose_heads, objects_of_photographs, objects_of_scenes, read_heads
from evaluation.maps import Pointing, photograph_pointing, scene_pointing
from evaluation.measures import Bleu, bleu, cider, common_length, rouge_l
from evaluation.ptb import ptb_tokens, scored_tokens
from evaluation.scenes import held_out_scenes, judge_scenes

__all__ = [
    "SELECTION_SERIES",
    "Bleu",
    "CaptionScores",
    "Pointing",
    "best_constant",
    "bleu",
    "caption_pictures",
    "choose_heads",
    "cider",
    "common_length",
    "explain_pictures",
    "golden_figures",
    "held_out_scenes",
    "judge_scenes",
    "kendall_tau_c",
    "objects_of_photographs",
    "objects_of_scenes",
    "photograph_pointing",
    "png_bytes",
    "ptb_tokens",
    "read_heads",
    "rouge_l",
    "scene_pointing",
    "score_captions",
    "scored_tokens",
    "tokenised",
    "tokens_in_order",
    "wrong_pictures",
]
