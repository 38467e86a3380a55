"""Speed of the model next to transformers, cost and correctness of the scorer, and throughput of tar shards."""

import model  # isort: skip  # noqa: F401  before torch is imported

from benchmarks.commands import add_speed_command
from benchmarks.golden import coco_captions, golden_figures, kendall_tau_c, tokenize_in_order
from benchmarks.peers import PEER_FAMILIES, random_peer, randomize_weights, save_peer
from benchmarks.scorer_cost import compare_scorer_speed, measure_scorer_cost
from benchmarks.streaming import measure_streaming, resident_megabytes
from benchmarks.throughput import compare_with_peer, measure_checkpoint

__all__ = [
    "PEER_FAMILIES",
    "add_speed_command",
    "coco_captions",
    "compare_scorer_speed",
    "compare_with_peer",
    "golden_figures",
    "kendall_tau_c",
    "measure_checkpoint",
    "measure_scorer_cost",
    "measure_streaming",
    "random_peer",
    "randomize_weights",
    "resident_megabytes",
    "save_peer",
    "tokenize_in_order",
]
