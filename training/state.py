"""A run's folder: the state that --resume needs, written so that an interruption at any moment leaves a complete state."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corpus import check_data, is_synthetic
from model import CheckpointError
from training.config import NETWORK_FLAGS, TrainConfig

_OWN_NAMES = ("features", "best", "last", "state.pt.partial")  # what a run writes before it has a state
_NOT_IN_CARD = {"run", "feature_cache", "resume", "dry_run", "data", "init", "device", "threads"}


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    best: float = float("-inf")  # best validation score so far
    is_finished: bool = False


def save_state(run: Path, progress: Progress, parts: dict[str, Any], settings: dict[str, Any], device: torch.device) -> None:
    """Write everything that a resumed run needs, atomically; the random states of CPU and device included."""
    document = {
        "progress": {name: getattr(progress, name) for name in Progress.__slots__},
        "parts": parts,
        "settings": settings,
        "rng": torch.get_rng_state(),
        "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    partial = run / "state.pt.partial"
    torch.save(document, partial)
    os.replace(partial, run / "state.pt")


def load_state(run: Path) -> tuple[Progress, dict[str, Any], dict[str, Any]]:
    """Read what save_state wrote: progress, parts (tensors on the CPU), settings; the random states are restored."""
    path = run / "state.pt"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: there is nothing to resume; start the run without --resume")
    document = torch.load(path, weights_only=True, map_location="cpu")
    torch.set_rng_state(document["rng"])
    device = torch.device(document["settings"]["device"])
    if document["device_rng"] is not None and (device.index or 0) < torch.cuda.device_count():
        torch.cuda.set_rng_state(document["device_rng"], device)
    return Progress(**document["progress"]), document["parts"], document["settings"]


def unusable_folder(run: Path) -> str:
    """Return why a new run cannot use a folder, "" if it can."""
    if (run / "state.pt").exists():
        return f"{run} contains a run already; continue it with --resume, or name another folder"
    names = [path.name for path in run.iterdir()] if run.is_dir() else []
    unknown = next((name for name in names if name not in _OWN_NAMES and not name.startswith(".")), "")
    return f"{run} contains {unknown!r}, which is not a run's; name a new folder with --run" if unknown else ""


def card_text(config: TrainConfig, step: int, license: str = "") -> str:
    """Return the card of a run's checkpoints as Markdown; `license` is that of the checkpoint of --init."""
    data = ", ".join(Path(name).name for name in config.data)
    settings = dataclasses.asdict(config)
    omitted = _NOT_IN_CARD | NETWORK_FLAGS if config.init else _NOT_IN_CARD  # the network is that of --init
    lines = [f"- {name}: {value}" for name, value in settings.items() if name not in omitted]
    head = ["# A Sightline checkpoint", "", f"Trained on {data}; {step} steps. The terms of its data apply to it.", ""]
    if config.init:
        head += [f"Started from `{Path(config.init).name}`, whose license applies too: {license or 'unknown'}.", ""]
    return "\n".join([*head, *lines, ""])


def check_sources(config: TrainConfig) -> bool:
    """Print a check of the data, and return whether it has no errors."""
    reports = [check_data(data, language=config.language) for data in config.data if not is_synthetic(data)]
    for report in reports:
        print(report.to_text())
    return not any(report.errors for report in reports)
