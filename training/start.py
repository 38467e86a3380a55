"""What is looked at before a run begins: its folder, and the data that it learns from."""

from __future__ import annotations

from pathlib import Path

from corpus import Report, check_data, is_drawn
from training.config import TrainConfig

_OWN = ("features", "best", "last")  # what a run writes before it has a state


def foreign_file(run: Path) -> str:
    """Return the name of something in a folder that a run does not write, "" where there is nothing of the kind."""
    names = (path.name for path in run.iterdir()) if run.is_dir() else ()
    return next((name for name in names if name not in _OWN and not name.startswith(".")), "")


def check_sources(config: TrainConfig) -> list[Report]:
    """Look at all data of a run that is not drawn: every record, picture and caption."""
    return [check_data(data, language=config.language) for data in config.data if not is_drawn(data)]
