"""The card of a checkpoint that a run writes: what it was trained on, and how."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from training.config import NETWORK_FLAGS, TrainConfig

_OF_THE_MACHINE = {"run", "cache", "resume", "dry_run", "data", "init"}  # say nothing about the checkpoint


def card_text(config: TrainConfig, step: int, licence: str = "") -> str:
    """Return the card as Markdown; `licence` is that of the checkpoint that the run started from."""
    data = ", ".join(Path(name).name for name in config.data)
    settings = dataclasses.asdict(config)
    silent = _OF_THE_MACHINE | NETWORK_FLAGS if config.init else _OF_THE_MACHINE  # with --init the checkpoint brings its network
    lines = [f"- {name}: {value}" for name, value in settings.items() if name not in silent]
    head = ["# A Sightline checkpoint", "", f"Trained on {data}; {step} steps. The terms of its data apply to it.", ""]
    if config.init:
        terms = licence or "not told"
        head += [f"Started from `{Path(config.init).name}`, whose licence applies too: {terms}.", ""]
    return "\n".join([*head, *lines, ""])
