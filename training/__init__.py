"""The parts of training that do not fit train.py's page: settings, data, batches, cached features, network, state, validation."""

import model  # isort: skip  # noqa: F401  before torch is imported

from training.closing import Judgement, closing_text, judge, write_validation_captions
from training.config import TrainConfig, make_parser, parse_arguments, restored_config, used_flags
from training.data import Batch, TextData, TrainingData, read_texts
from training.features import FeatureCache, FrozenPart, cached_features, view_pixels
from training.frozen import StateWeights, average_of
from training.log import RunLog, read_log
from training.loss import caption_loss, predict
from training.network import build_network, build_optimizer, choose_frozen_part, inherited_text, update_average
from training.progress import Progress
from training.regions import RegionFinder, read_all_detections
from training.schedule import cost_text, count_steps, images_per_epoch, lr_factor, resolve_length
from training.self_critical import SelfCritical, self_critical_of
from training.sources import Source, as_state, open_sources, write_validation_ids
from training.start import RunStart, new_run, resumed_run
from training.state import RunState, card_text, load_state, save_state, unusable_folder
from training.validation import greedy_captions, validation_report

__all__ = [
    "Batch",
    "FeatureCache",
    "FrozenPart",
    "Judgement",
    "Progress",
    "RegionFinder",
    "RunLog",
    "RunStart",
    "RunState",
    "SelfCritical",
    "Source",
    "StateWeights",
    "TextData",
    "TrainConfig",
    "TrainingData",
    "as_state",
    "average_of",
    "build_network",
    "build_optimizer",
    "cached_features",
    "caption_loss",
    "card_text",
    "choose_frozen_part",
    "closing_text",
    "cost_text",
    "count_steps",
    "greedy_captions",
    "images_per_epoch",
    "inherited_text",
    "judge",
    "load_state",
    "lr_factor",
    "make_parser",
    "new_run",
    "open_sources",
    "parse_arguments",
    "predict",
    "read_all_detections",
    "read_log",
    "read_texts",
    "resolve_length",
    "restored_config",
    "resumed_run",
    "save_state",
    "self_critical_of",
    "unusable_folder",
    "update_average",
    "used_flags",
    "validation_report",
    "view_pixels",
    "write_validation_captions",
    "write_validation_ids",
]
