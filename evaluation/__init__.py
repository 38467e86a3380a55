"""Every number that is published is made here."""

from evaluation.baselines import best_constant, human_captions, leave_one_out, nearest_captions, wrong_pictures
from evaluation.captions import CaptionScores, score_captions
from evaluation.generate import caption_pictures, explain_pictures, png_bytes
from evaluation.golden import golden_figures, kendall_tau_c, speed_beside_peer, tokens_in_order
from evaluation.heads import SELECTION_SERIES, choose_heads, objects_of_photographs, objects_of_scenes, read_heads
from evaluation.maps import Pointing, photograph_pointing, scene_pointing
from evaluation.measures import Bleu, bleu, bleu_of, cider, common_length, rouge_l
from evaluation.ptb import ptb_tokens, scored_tokens
from evaluation.scenes import held_out_scenes, judge_scenes
from evaluation.tokens import tokens_of, told_tokens

__all__ = [
    "SELECTION_SERIES",
    "Bleu",
    "CaptionScores",
    "Pointing",
    "best_constant",
    "bleu",
    "bleu_of",
    "caption_pictures",
    "choose_heads",
    "cider",
    "common_length",
    "explain_pictures",
    "golden_figures",
    "held_out_scenes",
    "human_captions",
    "judge_scenes",
    "kendall_tau_c",
    "leave_one_out",
    "nearest_captions",
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
    "speed_beside_peer",
    "tokens_in_order",
    "tokens_of",
    "told_tokens",
    "wrong_pictures",
]
