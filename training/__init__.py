"""The parts of training that do not fit train.py's page: settings, data, batches, cached features, network, state, validation."""

import model  # isort: skip  # noqa: F401  before torch is imported

from training.arguments import PRESETS, make_parser, parse_arguments, presets_table, used_flags, with_preset
from training.closing import Judgement, closing_text, judge, write_validation_captions
from training.config import TrainConfig, restored_config
from training.data import Batch, TextData, TrainingData, read_texts
from training.features import FeatureCache, FrozenPart, cached_features, view_pixels
from training.health import StepGuard, collapse_alarm, failure_message
from training.interrupts import StoppedError, StopSignals
from training.loading import TEXT, LoadedStep, PlannedStep, StepLoader
from training.log import RunLog, read_log
from training.lora import add_lora, merged_weights
from training.loss import caption_losses, predict
from training.network import build_network, choose_frozen_part
from training.objective import Totals, TrainingObjective
from training.optimizer import (
    WeightAverage,
    build_optimizer,
    clip_gradients,
    learning_rates,
    set_learning_rates,
)
from training.parallel import check_parallel, gradients_summed
from training.progress import Progress
from training.progress_bar import bar_text, memory_used
from training.ranks import Ranks, running_ranks, seed_step
from training.regions import RegionFinder
from training.run_data import RunData
from training.run_files import write_run_description
from training.samples import sample_sheets
from training.saves import RunSaves
from training.schedule import (
    COST_STEPS,
    cost_text,
    count_steps,
    encoder_factor,
    first_encoder_step,
    images_per_epoch,
    lr_factor,
    resolve_length,
    stage_part,
)
from training.self_critical import SelfCritical, self_critical_of
from training.sources import Source, open_sources, write_validation_ids
from training.start import RunStart, new_run, run_start
from training.state import load_state
from training.trained_network import TrainedNetwork
from training.validation import greedy_captions, merged_captions, validation_report

__all__ = [
    "COST_STEPS",
    "PRESETS",
    "TEXT",
    "Batch",
    "FeatureCache",
    "FrozenPart",
    "Judgement",
    "LoadedStep",
    "PlannedStep",
    "Progress",
    "Ranks",
    "RegionFinder",
    "RunData",
    "RunLog",
    "RunSaves",
    "RunStart",
    "SelfCritical",
    "Source",
    "StepGuard",
    "StepLoader",
    "StopSignals",
    "StoppedError",
    "TextData",
    "Totals",
    "TrainConfig",
    "TrainedNetwork",
    "TrainingData",
    "TrainingObjective",
    "WeightAverage",
    "add_lora",
    "bar_text",
    "build_network",
    "build_optimizer",
    "cached_features",
    "caption_losses",
    "check_parallel",
    "choose_frozen_part",
    "clip_gradients",
    "closing_text",
    "collapse_alarm",
    "cost_text",
    "count_steps",
    "encoder_factor",
    "failure_message",
    "first_encoder_step",
    "gradients_summed",
    "greedy_captions",
    "images_per_epoch",
    "judge",
    "learning_rates",
    "load_state",
    "lr_factor",
    "make_parser",
    "memory_used",
    "merged_captions",
    "merged_weights",
    "new_run",
    "open_sources",
    "parse_arguments",
    "predict",
    "presets_table",
    "read_log",
    "read_texts",
    "resolve_length",
    "restored_config",
    "run_start",
    "running_ranks",
    "sample_sheets",
    "seed_step",
    "self_critical_of",
    "set_learning_rates",
    "stage_part",
    "used_flags",
    "validation_report",
    "view_pixels",
    "with_preset",
    "write_run_description",
    "write_validation_captions",
    "write_validation_ids",
]
