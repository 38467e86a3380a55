"""A run's folder: what it needs to go on after a stop, written so that a stop at any moment leaves a whole state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model import CheckpointError


@dataclass(slots=True)
class Progress:
    """Where a run stands."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already done
    step: int = 0
    best: float = float("-inf")  # best validation score so far
    finished: bool = False


def save_state(run: Path, progress: Progress, parts: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write everything that a resumed run needs, in one move."""
    document = {
        "progress": {name: getattr(progress, name) for name in Progress.__slots__},
        "parts": parts,
        "settings": settings,
        "random": torch.get_rng_state(),
    }
    partial = run / "state.pt.partial"
    torch.save(document, partial)
    os.replace(partial, run / "state.pt")


def load_state(run: Path) -> tuple[Progress, dict[str, Any], dict[str, Any]]:
    """Read what save_state wrote: progress, parts, settings; the random state is set as it was."""
    path = run / "state.pt"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: there is nothing to resume; start the run without --resume")
    document = torch.load(path, weights_only=True)
    torch.set_rng_state(document["random"])
    return Progress(**document["progress"]), document["parts"], document["settings"]
