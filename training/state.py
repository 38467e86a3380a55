"""A run's folder: the state that --resume needs, written so that an interruption at any moment leaves a complete state."""

from __future__ import annotations

import dataclasses
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model import CheckpointError
from training.config import NETWORK_FLAGS, TrainConfig
from training.log import CURVES_NAME, LOG_NAME
from training.progress import Progress

# What a run writes before it has a state.
_OWN_NAMES = ("features", "best", "last", "state.pt.partial", LOG_NAME, f"{LOG_NAME}.partial", CURVES_NAME)
_OWN_PREFIX = "validation_"
_NOT_IN_CARD = {"run", "feature_cache", "resume", "dry_run", "from_scratch", "data", "init", "device", "threads"}
_OLDER_DEFAULTS = {"val_share": 0.0}  # of runs whose state lacks a setting: what they did


@dataclass(frozen=True, slots=True)
class RunState:
    """What a state file holds. `parts` are tensors on the CPU and the tokenizer; the frozen weights are not among them."""

    progress: Progress
    parts: dict[str, Any]
    settings: dict[str, Any]  # the run's TrainConfig as plain values, with its device and type
    sources: list[dict[str, Any]] = field(default_factory=list)  # see training.sources.as_state
    frozen: str = ""  # digest of the frozen weights; empty: they are in `parts`
    random_states: tuple[torch.Tensor, torch.Tensor | None] = field(default_factory=lambda: (torch.get_rng_state(), None))

    def restore_random_states(self) -> None:
        """Set the random states of the CPU, and of the device if it is here."""
        cpu, other = self.random_states
        torch.set_rng_state(cpu)
        device = torch.device(self.settings["device"])
        if other is not None and (device.index or 0) < torch.cuda.device_count():
            torch.cuda.set_rng_state(other, device)


def save_state(run: Path, state: RunState, device: torch.device) -> None:
    """Write everything that a resumed run needs, atomically; the random states of CPU and device included."""
    document = {
        "progress": dataclasses.asdict(state.progress),
        "parts": state.parts,
        "settings": state.settings,
        "sources": state.sources,
        "frozen": state.frozen,
        "rng": torch.get_rng_state(),
        "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    partial = run / "state.pt.partial"
    torch.save(document, partial)
    os.replace(partial, run / "state.pt")


def load_state(run: Path) -> RunState:
    """Read what save_state wrote, or an older version of this program. Raises CheckpointError."""
    path = run / "state.pt"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: there is nothing to resume; start the run without --resume")
    try:
        document = torch.load(path, weights_only=True, map_location="cpu")
        progress = Progress(**document["progress"])
        state = RunState(
            progress, document["parts"], _OLDER_DEFAULTS | document["settings"], document.get("sources", []),
            document.get("frozen", ""), (document["rng"], document["device_rng"]),
        )  # fmt: skip
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged or is not a run's state; start a new run from the weights in {run / 'last'}, if it has them: "
            f"--run FOLDER --init {run / 'last'}"
        ) from error
    return state


def unusable_folder(run: Path) -> str:
    """Return why a new run cannot use a folder, "" if it can."""
    if (run / "state.pt").exists():
        return f"{run} contains a run already; continue it with --resume, or name another folder"
    names = [path.name for path in run.iterdir()] if run.is_dir() else []
    own = [name for name in names if name in _OWN_NAMES or name.startswith((".", _OWN_PREFIX))]
    unknown = next((name for name in names if name not in own), "")
    return f"{run} contains {unknown!r}, which is not a run's; name a new folder with --run" if unknown else ""


def card_text(config: TrainConfig, step: int, license: str = "", inherited: str = "") -> str:
    """Return the card of a run's checkpoints as Markdown; `license` is that of the checkpoint of --init."""
    data = ", ".join(Path(name).name for name in config.data)
    settings = dataclasses.asdict(config)
    omitted = _NOT_IN_CARD | NETWORK_FLAGS if config.init else _NOT_IN_CARD  # the network is that of --init
    lines = [f"- {name}: {value}" for name, value in settings.items() if name not in omitted]
    head = ["# A Sightline checkpoint", "", f"Trained on {data}; {step} steps. The terms of its data apply to it.", ""]
    if config.init:
        start = f"Started from `{Path(config.init).name}`, whose license applies too: {license or 'unknown'}."
        head += [start, "", f"{inherited[:1].upper()}{inherited[1:]}.", ""]
    return "\n".join([*head, *lines, ""])
