"""What would swell train.py: settings, batches, cached features, the weight average, the state of a run."""

from training.average import WeightAverage
from training.batches import Batch, TrainingSource
from training.card import card_text
from training.config import TrainConfig, parse_arguments, restored_config
from training.features import FeatureCache, FrozenPart, cached_features, view_pixels
from training.loss import caption_loss
from training.network import build_network, frozen_part
from training.optimiser import build_optimiser
from training.run import Progress, load_state, save_state
from training.schedule import rate_factor
from training.start import check_sources, foreign_file
from training.validation import greedy_captions

__all__ = [
    "Batch",
    "FeatureCache",
    "FrozenPart",
    "Progress",
    "TrainConfig",
    "TrainingSource",
    "WeightAverage",
    "build_network",
    "build_optimiser",
    "cached_features",
    "caption_loss",
    "card_text",
    "check_sources",
    "foreign_file",
    "frozen_part",
    "greedy_captions",
    "load_state",
    "parse_arguments",
    "rate_factor",
    "restored_config",
    "save_state",
    "view_pixels",
]
