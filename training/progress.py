"""How far a run is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """What has been done of a run, and how well."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    best: float = float("-inf")  # best validation score so far
    is_finished: bool = False
    best_step: int = 0
    before: float | None = None  # validation score of the checkpoint of --init
    seconds: float = 0.0  # of training, over all parts of the run
    step_seconds: float = 0.0  # of the last step
    stale: int = 0  # validations since the best one
    mean_loss: float = 0.0  # of the last steps, which count less the older they are

    def count_step(self, seconds: float, loss: float) -> None:
        """Count a step that took some seconds."""
        if math.isfinite(loss):
            self.mean_loss = loss if not self.step else 0.98 * self.mean_loss + 0.02 * loss
        self.batch += 1
        self.step += 1
        self.step_seconds = seconds
        self.seconds += seconds
