"""A run's folder: the state that --resume needs, written so that an interruption at any moment leaves a complete state.

The state is one file, state.pt, or with --fsdp a folder, state, to which every rank writes its shards
(torch.distributed.checkpoint). Either can be resumed on any number of ranks, with or without --fsdp.
"""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from model import CheckpointError, recover_folder
from training.config import NETWORK_FLAGS, TrainConfig
from training.log import CURVES_NAME, LOG_NAME
from training.progress import Progress

STATE_FILE, STATE_FOLDER = "state.pt", "state"
CONFIG_NAME = "run.json"
SMALL_NAME = "run.pt"  # in the folder: everything but the shards
# What a run writes before it has a state.
_OWN_NAMES = ("features", "best", "last", f"{STATE_FILE}.partial", LOG_NAME, f"{LOG_NAME}.partial", CURVES_NAME, CONFIG_NAME)
_OWN_PREFIX = "validation_"
_NOT_IN_CARD = {"run", "feature_cache", "resume", "dry_run", "from_scratch", "data", "init", "device", "threads", "workers"}
_OLDER_DEFAULTS = {"val_share": 0.0}  # of runs whose state lacks a setting: what they did


@dataclass(frozen=True, slots=True)
class RunState:
    """What a state holds. `parts` are tensors by part and name, and the tokenizer, without weights that are never trained.

    There are no random states: what a step draws follows from its number (training/loading.py).
    """

    progress: Progress
    parts: dict[str, Any]
    settings: dict[str, Any]  # the run's TrainConfig as plain values, with its device and type
    sources: list[dict[str, Any]] = field(default_factory=list)  # see training.sources.as_state
    frozen: str = ""  # digest of the frozen weights; empty: they are in `parts`

    def document(self) -> dict[str, Any]:
        """Return the state as plain values and tensors, as the file has it."""
        return {
            "progress": dataclasses.asdict(self.progress),
            "parts": self.parts,
            "settings": self.settings,
            "sources": self.sources,
            "frozen": self.frozen,
        }


def has_state(run: Path) -> bool:
    """Return whether a run can be resumed."""
    return (run / STATE_FILE).exists() or (run / STATE_FOLDER).exists()


def recover_state(run: Path) -> None:
    """Restore a folder of shards whose replacement was interrupted. For one rank, before the others look."""
    recover_folder(run / STATE_FOLDER)


def load_state(run: Path) -> RunState:
    """Read a state, or that of an older version of this program. Raises CheckpointError."""
    if not has_state(run):
        raise CheckpointError(f"{run / STATE_FILE} does not exist: there is nothing to resume; start the run without --resume")
    paths = [path for path in (run / STATE_FILE, run / STATE_FOLDER) if path.exists()]
    path = max(
        paths, key=lambda path: path.stat().st_mtime
    )  # both are there if a run ended between writing one and removing the other
    try:
        if path.name == STATE_FILE:
            document = torch.load(path, weights_only=True, map_location="cpu")
        else:
            document = torch.load(path / SMALL_NAME, weights_only=True)
            document["parts"] = _nested(document["parts"] | _read_shards(path))
        return RunState(
            Progress(**document["progress"]), document["parts"], _OLDER_DEFAULTS | document["settings"],
            document.get("sources", []), document.get("frozen", ""),
        )  # fmt: skip
    except (
        RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError, OSError,
        CheckpointException,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} is damaged or is not a run's state; start a new run from the weights in {run / 'last'}, if it has them: "
            f"--run FOLDER --init {run / 'last'}"
        ) from error


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under keys such as network/decoder.norm.weight."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}/") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def unusable_folder(run: Path) -> str:
    """Return why a new run cannot use a folder, "" if it can."""
    if has_state(run):
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


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """Return the whole tensors of a folder of shards, whatever number of ranks wrote it."""
    metadata = FileSystemReader(folder).read_metadata()
    tensors: dict[str, Tensor] = {
        key: torch.empty(value.size, dtype=value.properties.dtype)  # type: ignore[union-attr]
        for key, value in metadata.state_dict_metadata.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it reads in one process, which is meant: each rank reads all
        load_shards(dict(tensors), checkpoint_id=str(folder), no_dist=True)
    return tensors


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flattened`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, name = key.split("/")
        at = nested
        for part in path:
            at = at.setdefault(part, {})
        at[name] = value
    return nested
