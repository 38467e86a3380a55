"""What happens before the first step: the data is checked and opened, advice is printed, a resumed run finds its state."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import check_data, is_synthetic
from model import ConfigError, pin_revision
from training.advice import refusal, warnings
from training.arguments import command_line
from training.config import TrainConfig
from training.ranks import Ranks, is_started_by_torchrun
from training.resume import is_length_named, resumed_config
from training.schedule import count_steps, resolve_length
from training.sources import Source, check_files, file_digests, open_sources
from training.state import RunState, has_state, load_state, recover_state, unusable_folder

_MAX_PROBLEMS = 20  # records that are left out and listed


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a run starts from: its settings with a length, its data, digests of its other files, the state of a resumed run."""

    config: TrainConfig
    sources: list[Source]
    files: dict[str, str]
    state: RunState | None = None


def run_start(config: TrainConfig, flags: dict[str, Any], ranks: Ranks) -> RunStart | int:
    """Return the start of a new or a resumed run; or the exit status if there is nothing to do, after printing why.

    torchrun repeats its command after a failure: under torchrun a run that has a state is resumed.
    """
    if ranks.is_first:
        recover_state(Path(config.run))
    ranks.barrier()
    is_resumed = config.resume or (is_started_by_torchrun() and has_state(Path(config.run)))
    start = resumed_run(flags) if is_resumed else new_run(config, flags, ranks)
    ranks.barrier()  # no rank writes before all have looked at the folder
    return start


def new_run(config: TrainConfig, flags: dict[str, Any], ranks: Ranks | None = None) -> RunStart | int:
    """Return the start of a new run; or the exit status if it cannot start, after printing why."""
    ranks = ranks or Ranks()
    if message := unusable_folder(Path(config.run)):
        return _refuse(message)
    if config.check and not ranks.broadcast(ranks.is_first and check_sources(config)):
        again = command_line(flags | {"check": False})
        print(f"train.py: fix the data, or train without what cannot be used:\n\n    {again}", file=sys.stderr)
        return 1
    sources = open_sources(config)
    config = resolve_length(
        dataclasses.replace(config, init=pin_revision(config.init)), sources
    )  # a hub may change before --resume
    if message := refusal(config, flags, sources):
        return _refuse(message)
    _report_sources(config, sources)
    for text in warnings(config, flags, sources):
        print(f"WARNING: {text}")
    return RunStart(config, sources, file_digests(config))


def resumed_run(flags: dict[str, Any]) -> RunStart | int:
    """Return the start of a resumed run; or the exit status if there is nothing to do, after printing why."""
    state = load_state(Path(flags["run"]))
    progress = state.progress
    try:
        config = resumed_config(state.settings, flags)
    except ConfigError as error:
        return _refuse(str(error))
    if progress.is_finished and not is_length_named(flags):
        longer = 2 * config.epochs
        print(f"{config.run} is finished after {progress.step} steps; nothing to do (--epochs {longer} makes it longer)")
        return 0
    sources = open_sources(config, state.sources)
    files = check_files(config, state.settings.get("files", {}))
    config = resolve_length(config, sources)
    total = count_steps(config, sources)
    is_complete = progress.is_finished and progress.step >= total
    if is_length_named(flags) and (total < progress.step or is_complete):
        if total == progress.step:
            print(f"{config.run} is finished after {progress.step} steps, as many as these flags say; nothing to do")
            return 0
        return _refuse(
            f"--epochs {config.epochs} --max-steps {config.max_steps} end it after {total} steps, "
            f"but it has done {progress.step}; name more"
        )
    if progress.is_finished and not is_complete:  # it is made longer
        progress.stale = 0
    progress.is_finished = is_complete
    _report_sources(config, sources)
    print(f"{config.run} continues after {progress.step} of {total} steps")
    if total != count_steps(resolve_length(resumed_config(state.settings, {"run": config.run}), sources), sources):
        print(f"its learning rate follows from here on the schedule of a run of {total} steps")
    return RunStart(config, sources, files, state)


def check_sources(config: TrainConfig) -> bool:
    """Print a check of the data, and return whether it has no errors."""
    reports = [check_data(data, language=config.language) for data in config.data if not is_synthetic(data)]
    for report in reports:
        print(report.to_text())
    return not any(report.errors for report in reports)


def _report_sources(config: TrainConfig, sources: list[Source]) -> None:
    """Print which images are left out, and which are held out."""
    for source in sources:
        if source.problems:
            count = len(source.problems)
            print(f"{source.name}: {count:,} {'record' if count == 1 else 'records'} cannot be used, left out:")
            print("\n".join(f"    {problem}" for problem in source.problems[:_MAX_PROBLEMS]))
            if len(source.problems) > _MAX_PROBLEMS:
                print(f"    and {len(source.problems) - _MAX_PROBLEMS:,} more")
        if source.held_out:
            print(
                f"{source.name} has no val split: {len(source.held_out)} of its {len(source.train) + len(source.held_out)} "
                "images are held out for validation (--val-share)"
            )


def _refuse(message: str) -> int:
    print(f"train.py: {message}", file=sys.stderr)
    return 2
