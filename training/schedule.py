"""The length of a run and its learning rate: epochs and validations by the size of the data, warmup and cosine."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.config import TrainConfig
from training.data import read_texts
from training.features import FrozenPart
from training.sources import Source

MIN_LR = 0.02  # share of the peak learning rate that the cosine ends at
MIN_EPOCHS = 8  # of a run without --epochs
MIN_STEPS = {"init": 60, "new": 1_000}  # of a run without --epochs, from a checkpoint or with a new network
COST_STEPS = 3  # that are timed
_VALIDATIONS = 10  # of a run without --eval-epochs


def batches_per_epoch(config: TrainConfig, sources: Sequence[Source], epoch: int | None = None) -> int:
    """Return the optimizer steps of an epoch over all sources; of those behind the stages of --text-epochs without `epoch`."""
    images = sum(-(-images_per_epoch(config, source) // config.batch_size) for source in sources)
    is_text_epoch = epoch is not None and epoch < config.text_epochs
    has_text = is_text_epoch or (bool(config.text) and not config.text_epochs)
    texts = -(-count_texts(config, sources) // (config.batch_size * config.captions_per_image)) if has_text else 0
    return texts if is_text_epoch else texts + images


def count_texts(config: TrainConfig, sources: Sequence[Source]) -> int:
    """Return how many captions without images a run has: those of --text, or those of the data for --text-epochs."""
    return len(texts_of(config, sources))


def texts_of(config: TrainConfig, sources: Sequence[Source]) -> list[str]:
    """Return the captions without images: those of --text, or those of the data for --text-epochs."""
    if config.text:
        return read_texts(Path(config.text))
    return [text for source in sources for entry in source.train for text in entry.captions]


def stage_part(config: TrainConfig, frozen: FrozenPart, epoch: int) -> FrozenPart:
    """Return what is frozen in an epoch: the whole encoder in the first ones, then `frozen`."""
    return FrozenPart("encoder") if epoch < config.text_epochs + config.frozen_epochs and config.frozen_epochs else frozen


def encoder_factor(config: TrainConfig, first_step: int, step: int, num_steps: int) -> float:
    """Return the share of its learning rate that the encoder has: after --frozen-epochs a warmup from `first_step`."""
    if not config.frozen_epochs:
        return 1.0
    warmup = max(1, round(config.warmup_ratio * num_steps))
    return min(1.0, max(0.0, (step - first_step + 1) / warmup))


def first_encoder_step(config: TrainConfig, sources: Sequence[Source]) -> int:
    """Return the number of steps before the encoder's first one: those of --text-epochs and --frozen-epochs."""
    if not config.frozen_epochs:
        return 0
    return sum(batches_per_epoch(config, sources, epoch) for epoch in range(config.text_epochs + config.frozen_epochs))


def images_per_epoch(config: TrainConfig, source: Source) -> int:
    """Return how many images of a source are trained on in an epoch."""
    return min(len(source.train), config.max_images_per_epoch or len(source.train))


def resolve_length(config: TrainConfig, sources: Sequence[Source]) -> TrainConfig:
    """Return the config with epochs, eval_epochs and lr instead of the zeros and none that stand for them.

    Small data gets more epochs: a checkpoint needs at least 60 steps for other captions, a new network at least 1,000.
    """
    batches = batches_per_epoch(config, sources)
    min_steps = MIN_STEPS["init" if config.init else "new"]
    automatic = -(-config.max_steps // batches) if config.max_steps else max(MIN_EPOCHS, -(-min_steps // batches))
    epochs = config.epochs or config.text_epochs + automatic
    eval_epochs = config.eval_epochs or max(1, epochs // _VALIDATIONS)
    return dataclasses.replace(config, epochs=epochs, eval_epochs=eval_epochs, lr=config.peak_lr)


def count_steps(config: TrainConfig, sources: Sequence[Source]) -> int:
    """Return the steps of the whole run, of a config with a length."""
    stages = min(config.text_epochs, config.epochs)
    steps = sum(batches_per_epoch(config, sources, epoch) for epoch in range(stages))
    return min(config.max_steps or sys.maxsize, steps + (config.epochs - stages) * batches_per_epoch(config, sources))


def lr_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate: linear warmup, then a cosine (Loshchilov and Hutter 2017, section 3)."""
    warmup_steps = max(1, warmup_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return MIN_LR + (1 - MIN_LR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def cost_text(run_step: Callable[[], object], num_steps: int) -> str:
    """Time a few steps, and return what the run would cost; the frozen features and the validations come on top."""
    seconds = []
    for _ in range(COST_STEPS):
        started = time.perf_counter()
        run_step()
        seconds.append(time.perf_counter() - started)
    minutes = min(seconds) * num_steps / 60
    duration = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{max(1, round(minutes))} minutes"
    return (
        f"a step takes {min(seconds):.2f} s here: {num_steps} steps, about {duration}\n"
        "the frozen features, once, and the validations come on top"
    )
