"""The settings of a resumed run: those that it was started with, and the few that --resume may change."""

from __future__ import annotations

from typing import Any

from model import ConfigError, fields_of
from training.arguments import flag_words
from training.config import TrainConfig, restored_config

CHANGEABLE = frozenset(
    {
        "run", "resume", "dry_run", "feature_cache", "epochs", "max_steps", "eval_epochs", "save_steps", "device", "dtype",
        "threads", "from_scratch", "patience", "sample_images", "accumulate", "gradient_checkpointing", "compile", "fsdp",
        "workers",
    }
)  # fmt: skip
_LENGTH = {"epochs", "max_steps"}


def resumed_config(settings: dict[str, Any], flags: dict[str, Any]) -> TrainConfig:
    """Return the settings of a resumed run: those of its state, with those of the command line that may change.

    --epochs alone removes the limit of --max-steps, and --max-steps alone adds the epochs that it needs. Raises ConfigError
    that names every flag that cannot change.
    """
    refused = [
        name
        for name, value in flags.items()
        if name not in CHANGEABLE and not _is_same(value, settings.get(name)) and not _is_pinned(name, value, settings)
    ]
    if refused:
        defaults = {info.name: info.default for info in fields_of(TrainConfig)}
        shown = ", ".join(
            f"{_shown(name, flags[name])} (it has {_shown(name, settings.get(name, defaults[name]))})" for name in refused
        )
        raise ConfigError(
            f"--resume cannot change {shown} of {flags['run']}; leave it out, or start a new run from its weights: "
            f"--run FOLDER --init {flags['run']}/last"
        )
    changed = {name: value for name, value in flags.items() if name in CHANGEABLE}
    if "epochs" in changed and "max_steps" not in changed:
        changed["max_steps"] = 0
    if changed.get("max_steps") and "epochs" not in changed:
        changed["epochs"] = 0
    return restored_config(settings | changed | {"resume": True})


def is_length_named(flags: dict[str, Any]) -> bool:
    """Return whether a command line says how long the run is."""
    return not _LENGTH.isdisjoint(flags)


def _is_same(value: Any, stored: Any) -> bool:
    return (list(value) if isinstance(value, tuple | list) else value) == (list(stored) if isinstance(stored, tuple) else stored)


def _is_pinned(name: str, value: Any, settings: dict[str, Any]) -> bool:
    """Return whether a run has the revision that --init hub:ID had when it was started."""
    return name == "init" and str(settings.get(name)).startswith(f"{value}@")


def _shown(name: str, value: Any) -> str:
    return " ".join(flag_words(name, value))
