"""Every number that is published is made here."""

import model  # isort: skip  # noqa: F401  before torch is imported

from evaluation.baselines import best_constant, human_captions, leave_one_out, nearest_captions, shuffled_images
from evaluation.captions import CaptionScores, score_captions
from evaluation.compare import Comparison, Row, compare, mean_features
from evaluation.generate import caption_images, explain_images, png_bytes, prepared_batches
from evaluation.golden import coco_captions, golden_figures, kendall_tau_c, tokens_in_order
from evaluation.hallucination import (
    Hallucination,
    Synonyms,
    invented_in_scenes,
    invented_objects,
    own_synonyms,
    read_synonyms,
)
from evaluation.heads import SELECTION_SERIES, choose_heads, objects_of_images, objects_of_scenes, read_heads
from evaluation.maps import Pointing, image_pointing, scene_pointing
from evaluation.measures import Bleu, bleu, bleu_of, cider, common_length, rouge_l
from evaluation.meteor import meteor
from evaluation.pages import captions_page
from evaluation.peers import random_peer
from evaluation.ptb import ptb_tokens, scored_tokens
from evaluation.scenes import held_out_scenes, judge_captions
from evaluation.speed import cost_beside_peer, cost_of_many
from evaluation.streaming import streaming_figures
from evaluation.systems import System, distinct, read_results, run_checkpoint, write_results
from evaluation.throughput import checkpoint_speed, speed_beside_peer
from evaluation.tokens import tokens_of, told_tokens

__all__ = [
    "SELECTION_SERIES",
    "Bleu",
    "CaptionScores",
    "Comparison",
    "Hallucination",
    "Pointing",
    "Row",
    "Synonyms",
    "System",
    "best_constant",
    "bleu",
    "bleu_of",
    "caption_images",
    "captions_page",
    "checkpoint_speed",
    "choose_heads",
    "cider",
    "coco_captions",
    "common_length",
    "compare",
    "cost_beside_peer",
    "cost_of_many",
    "distinct",
    "explain_images",
    "golden_figures",
    "held_out_scenes",
    "human_captions",
    "image_pointing",
    "invented_in_scenes",
    "invented_objects",
    "judge_captions",
    "kendall_tau_c",
    "leave_one_out",
    "mean_features",
    "meteor",
    "nearest_captions",
    "objects_of_images",
    "objects_of_scenes",
    "own_synonyms",
    "png_bytes",
    "prepared_batches",
    "ptb_tokens",
    "random_peer",
    "read_heads",
    "read_results",
    "read_synonyms",
    "rouge_l",
    "run_checkpoint",
    "scene_pointing",
    "score_captions",
    "scored_tokens",
    "shuffled_images",
    "speed_beside_peer",
    "streaming_figures",
    "tokens_in_order",
    "tokens_of",
    "told_tokens",
    "write_results",
]
