"""What a run saves while it goes on: checkpoints of its averaged weights, and its state. A full disk is a warning."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError

from model import SHARD_BYTES, DevicePolicy, save_checkpoint
from training.config import TrainConfig
from training.health import disk_message
from training.progress import Progress
from training.ranks import Ranks
from training.sources import as_state
from training.start import RunStart
from training.state import RunState, card_text, has_state
from training.state_writer import StateWriter
from training.trained_network import TrainedNetwork


class RunSaves:
    """Writes into a run's folder. Every rank calls its methods; the first one writes, or with FSDP each its shards."""

    def __init__(self, start: RunStart, config: TrainConfig, trained: TrainedNetwork, policy: DevicePolicy, ranks: Ranks) -> None:
        """`start.config` is that of the command line, `config` has the number of threads that is used."""
        self._start, self._config, self._trained, self._policy, self._ranks = start, config, trained, policy, ranks
        self._run = Path(config.run)
        step = start.state.progress.step if start.state else 0
        self.writer = StateWriter(self._run, ranks, is_sharded=config.fsdp, written_step=step)
        self.unsaved: OSError | None = None  # why the last checkpoint could not be written

    def checkpoint(self, name: str, progress: Progress) -> None:
        """Write RUN/best or RUN/last."""
        trained, weights = self._trained, self._trained.average.checkpoint_weights()
        if not self._ranks.is_first:
            return
        card = card_text(self._config, progress.step, trained.network.config.license, trained.inherited)
        try:
            save_checkpoint(
                self._run / name, trained.network.config, weights, trained.tokenizer, card,
                dtype=torch.float16, shard_bytes=SHARD_BYTES,
            )  # fmt: skip
            self.unsaved = None
        except (OSError, SafetensorError) as error:
            self.unsaved = OSError(f"{self._run / name} could not be written ({error}); free space, and continue with --resume")
            print(f"WARNING: {self.unsaved}")

    def state(self, progress: Progress) -> None:
        """Begin to write the state; a run whose last checkpoint could not be written is not finished in it."""
        progress = dataclasses.replace(progress, is_finished=progress.is_finished and self.unsaved is None)
        config, policy = self._config, self._policy
        is_alone = self._ranks.count == 1
        settings = dataclasses.asdict(config) | {
            "files": self._start.files,
            "device": str(policy.device) if is_alone else policy.device.type,
            "dtype": str(policy.dtype).removeprefix("torch."),
            "threads": config.threads if is_alone else self._start.config.threads,
        }
        parts, digest = self._trained.state_parts(), self._trained.state_weights.digest
        state = RunState(progress, parts, settings, as_state(self._start.sources), digest)
        self.finish_state(progress)
        self.writer.write(state)

    def finish_state(self, progress: Progress, *, waits: bool = True) -> None:
        """Finish the state that is being written; a full disk is no reason to end the run."""
        try:
            self.writer.finish() if waits else self.writer.poll()
        except OSError as error:
            print(f"WARNING: {disk_message(self._config.run, progress.step, self.writer.written_step, error)}")

    def finish(self) -> None:
        """Wait until everything is written. Raises OSError if the last checkpoint or the last state could not be written."""
        self.writer.finish()
        if self.unsaved is not None:
            raise self.unsaved

    def rescue(self, progress: Progress, *, is_whole: bool) -> int | None:
        """Save the state after an error, unless some weights had changed already; returns the step of the last state, or None.

        With FSDP the other ranks would have to help, which may have ended.
        """
        if is_whole and not self._config.fsdp:
            with suppress(OSError):
                self.state(progress)
                self.writer.finish()
        return self.writer.written_step if has_state(self._run) else None
