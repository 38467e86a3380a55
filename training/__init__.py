"""The parts of training that do not fit train.py's page: settings, batches, cached features, network, state, validation."""

import model  # isort: skip  # noqa: F401  before torch is imported

from training.config import TrainConfig, make_parser, parse_arguments, restored_config
from training.data import Batch, TrainingData
from training.features import FeatureCache, FrozenPart, cached_features, view_pixels
from training.network import build_network, build_optimizer, choose_frozen_part, update_average
from training.state import Progress, card_text, check_sources, load_state, save_state, unusable_folder
from training.validation import greedy_captions, validation_report

__all__ = [
    "Batch",
    "FeatureCache",
    "FrozenPart",
    "Progress",
    "TrainConfig",
    "TrainingData",
    "build_network",
    "build_optimizer",
    "cached_features",
    "card_text",
    "check_sources",
    "choose_frozen_part",
    "greedy_captions",
    "load_state",
    "make_parser",
    "parse_arguments",
    "restored_config",
    "save_state",
    "unusable_folder",
    "update_average",
    "validation_report",
    "view_pixels",
]
