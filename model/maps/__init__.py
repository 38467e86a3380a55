"""Attention maps: methods that give each token a map over the patches, and a word's map with its box and figures."""

from model.maps.attention import merge_heads, prompt_shares
from model.maps.methods import MapMethod, ScoredRows
from model.maps.registry import MAP_METHODS, find_map_method
from model.maps.word_map import WordMap, inside, peak_box, resample_map, word_map

__all__ = [
    "MAP_METHODS",
    "MapMethod",
    "ScoredRows",
    "WordMap",
    "find_map_method",
    "inside",
    "merge_heads",
    "peak_box",
    "prompt_shares",
    "resample_map",
    "word_map",
]
