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
from training.sources import Source

MIN_LR = 0.02  # share of the peak learning rate that the cosine ends at
MIN_EPOCHS = 8  # of a run without --epochs
MIN_STEPS = {"init": 60, "new": 1_000}  # of a run without --epochs, from a checkpoint or with a new network
_VALIDATIONS = 10  # of a run without --eval-epochs


def batches_per_epoch(config: TrainConfig, sources: Sequence[Source]) -> int:
    """Return the optimizer steps of an epoch over all sources."""
    texts = -(-len(read_texts(Path(config.text))) // (config.batch_size * config.captions_per_image)) if config.text else 0
    return texts + sum(-(-images_per_epoch(config, source) // config.batch_size) for source in sources)


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
    epochs = config.epochs or automatic
    eval_epochs = config.eval_epochs or max(1, epochs // _VALIDATIONS)
    return dataclasses.replace(config, epochs=epochs, eval_epochs=eval_epochs, lr=config.peak_lr)


def count_steps(config: TrainConfig, sources: Sequence[Source]) -> int:
    """Return the steps of the whole run, of a config with a length."""
    return min(config.max_steps or sys.maxsize, config.epochs * batches_per_epoch(config, sources))


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
    for _ in range(3):
        started = time.perf_counter()
        run_step()
        seconds.append(time.perf_counter() - started)
    minutes = min(seconds) * num_steps / 60
    duration = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{max(1, round(minutes))} minutes"
    return (
        f"a step takes {min(seconds):.2f} s here: {num_steps} steps, about {duration}\n"
        "the frozen features, once, and the validations come on top"
    )
