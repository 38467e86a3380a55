"""Loads the batches of the steps to come: each rank its share of the images, in worker processes if there are any.

What a step draws (views, captions, dropped images) follows from the seed and the step's number, so that a resumed run, and a run
on another number of ranks, draws the same.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from corpus import DataError
from model import ConfigError
from training.config import TrainConfig
from training.data import Batch, TextData, TrainingData
from training.ranks import Ranks

TEXT = -1  # the number of --text in a plan, where those of sources are 0, 1, …
_PREFETCH = 3  # steps that each worker has ready
_MAX_WORKERS = 12  # unless --workers says otherwise


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of an epoch: its number in the run, its source, and the images of all ranks."""

    number: int
    source: int
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoadedStep:
    """This rank's parts of a step; each part is computed alone."""

    num_images: int  # of all ranks
    parts: tuple[Batch, ...]

    def pin_memory(self) -> LoadedStep:
        """torch's DataLoader calls it for GPUs."""
        return LoadedStep(self.num_images, tuple(part.pin_memory() for part in self.parts))


class StepLoader(Dataset[LoadedStep | str]):
    """The batches of planned steps; a message instead, if an image cannot be loaded."""

    def __init__(self, data: dict[int, TrainingData | TextData], config: TrainConfig, ranks: Ranks) -> None:
        self._data, self._ranks = data, ranks
        self._seed, self._num_parts, self._num_workers = config.seed, config.accumulate, num_workers(config, data)
        self._steps: Sequence[PlannedStep] = ()

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> LoadedStep | str:
        """Return this rank's parts of a step of `load`."""
        step = self._steps[index]
        try:
            return LoadedStep(len(step.images), tuple(self._part(step, part) for part in range(self._num_parts)))
        except (DataError, ConfigError) as error:  # an error with its traceback of a worker would be no message
            return str(error)

    def load(self, steps: Sequence[PlannedStep], *, pin_memory: bool) -> Iterator[LoadedStep]:
        """Yield the batches of some steps, in order. Raises DataError if an image cannot be loaded."""
        self._steps = steps
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=self._num_workers,
            prefetch_factor=_PREFETCH if self._num_workers else None,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
        )
        for loaded in loader:
            if isinstance(loaded, str):
                raise DataError(loaded)
            yield loaded

    def _part(self, step: PlannedStep, part: int) -> Batch:
        data, rng = self._data[step.source], random.Random(f"batch {self._seed} {step.number}")
        own = self._ranks.part(step.images)[part :: self._num_parts]
        # Every rank computes every part, because gradients are summed over all: without an image of its own, one that counts 0.
        return data.batch(own, rng) if own else data.batch(list(step.images[:1]), rng).without_targets()


def num_workers(config: TrainConfig, data: dict[int, TrainingData | TextData]) -> int:
    """Return the number of worker processes: as the flag says, else threads - 1 where images are decoded."""
    if config.workers is not None:
        return config.workers
    is_decoding = any(isinstance(source, TrainingData) and not source.is_cached for source in data.values())
    return min(_MAX_WORKERS, max(0, config.threads - 1)) if is_decoding else 0


def _start_worker(_: int) -> None:
    """Let a worker go on after Ctrl-C, and after the SIGTERM that torchrun sends to it too: its process finishes a step first.

    A second SIGTERM ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
