"""Metrics of captions and maps, baselines, comparison of systems, and selection of heads."""

import model  # isort: skip  # noqa: F401  before torch is imported

from evaluation.baselines import best_constant_caption, human_captions, leave_one_out, nearest_captions, shuffled_images
from evaluation.commands import load_captioner
from evaluation.compare import Comparison, SystemScores, compare, mean_features
from evaluation.flags import add_checkpoint_flag, add_device_flag, add_dtype_flag, add_json_flag, int_at_least
from evaluation.generation import caption_images, explain_images, png_bytes, prepared_batches
from evaluation.hallucination import (
    Hallucination,
    Synonyms,
    coco_synonyms,
    count_hallucinations,
    count_scene_hallucinations,
    read_synonyms,
)
from evaluation.heads import (
    SELECTION_SERIES,
    HeadRows,
    NamedObjects,
    compute_head_rows,
    objects_of_images,
    objects_of_scenes,
    select_heads,
)
from evaluation.meteor import meteor
from evaluation.metrics import Bleu, CiderScorer, bleu, bleu_from_counts, cider, common_subsequence_length, rouge_l
from evaluation.pages import captions_page
from evaluation.pointing import Pointing, image_pointing, scene_pointing
from evaluation.ptb import clear_token_cache, ptb_tokens, scored_tokens
from evaluation.scenes import held_out_scenes, judge_captions
from evaluation.scores import CaptionScores, score_captions
from evaluation.synonyms import class_words, find_class_mention
from evaluation.systems import System, read_results, run_checkpoint, unique_names, write_results
from evaluation.tables import figures_text, systems_table
from evaluation.tokens import describe_tokens, tokenize_caption

__all__ = [
    "SELECTION_SERIES",
    "Bleu",
    "CaptionScores",
    "CiderScorer",
    "Comparison",
    "Hallucination",
    "HeadRows",
    "NamedObjects",
    "Pointing",
    "Synonyms",
    "System",
    "SystemScores",
    "add_checkpoint_flag",
    "add_device_flag",
    "add_dtype_flag",
    "add_json_flag",
    "best_constant_caption",
    "bleu",
    "bleu_from_counts",
    "caption_images",
    "captions_page",
    "cider",
    "class_words",
    "clear_token_cache",
    "coco_synonyms",
    "common_subsequence_length",
    "compare",
    "compute_head_rows",
    "count_hallucinations",
    "count_scene_hallucinations",
    "describe_tokens",
    "explain_images",
    "figures_text",
    "find_class_mention",
    "held_out_scenes",
    "human_captions",
    "image_pointing",
    "int_at_least",
    "judge_captions",
    "leave_one_out",
    "load_captioner",
    "mean_features",
    "meteor",
    "nearest_captions",
    "objects_of_images",
    "objects_of_scenes",
    "png_bytes",
    "prepared_batches",
    "ptb_tokens",
    "read_results",
    "read_synonyms",
    "rouge_l",
    "run_checkpoint",
    "scene_pointing",
    "score_captions",
    "scored_tokens",
    "select_heads",
    "shuffled_images",
    "systems_table",
    "tokenize_caption",
    "unique_names",
    "write_results",
]
