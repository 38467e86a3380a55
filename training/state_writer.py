"""Writes the state of a run while it goes on: one file, or a folder to which every rank writes its shards."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import async_save

from model import replace_folder
from training.ranks import Ranks
from training.state import SMALL_NAME, STATE_FILE, STATE_FOLDER, RunState, flattened


class StateWriter:
    """Writes states of a run in a thread, one after the other: a step waits only until its tensors are copied."""

    def __init__(self, run: Path, ranks: Ranks, *, is_sharded: bool, written_step: int = 0) -> None:
        self._run, self._ranks, self._is_sharded = run, ranks, is_sharded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: Future[None] | None = None
        self._pending_step = self.written_step = written_step  # of the state that is being written, and of the last complete one
        self._group = dist.new_group(backend="gloo") if is_sharded else None  # steps go on meanwhile, with messages of their own

    def write(self, state: RunState) -> None:
        """Begin to write a state, after `finish`. Every rank must call it; without shards the first one writes."""
        assert self._pending is None, "finish comes first"
        self._pending_step = state.progress.step
        if self._is_sharded:
            self._pending = _write_shards(self._run, state, self._ranks, self._group)
        elif self._ranks.is_first:
            self._pending = self._thread.submit(_write_file, self._run, _copied(state.document()))

    def poll(self) -> None:
        """Finish what is written, without waiting for it. Every rank calls it after every step. Raises OSError."""
        if self._pending is None:
            return
        is_done = self._pending.done()
        if self._ranks.sum(is_done)[0] == self._ranks.count if self._is_sharded else is_done:
            self.finish()

    def finish(self) -> None:
        """Wait until everything is written. Raises OSError. With shards every rank must call it."""
        pending, self._pending = self._pending, None
        error = pending.exception() if pending is not None else None
        if pending is None:
            return
        failed = self._ranks.sum(error is not None)[0] if self._is_sharded else error is not None
        if failed:
            raise _as_os_error(error)
        self.written_step = self._pending_step
        if not self._is_sharded:
            return
        if self._ranks.is_first:
            replace_folder(_partial_folder(self._run), self._run / STATE_FOLDER)
            (self._run / STATE_FILE).unlink(missing_ok=True)  # an older state, of a part of the run without --fsdp
        self._ranks.barrier()


def _write_file(run: Path, document: dict[str, Any]) -> None:
    partial = run / f"{STATE_FILE}.partial"
    with partial.open("wb") as file:
        torch.save(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, run / STATE_FILE)
    shutil.rmtree(run / STATE_FOLDER, ignore_errors=True)  # an older state, of a part of the run with --fsdp


def _write_shards(run: Path, state: RunState, ranks: Ranks, group: dist.ProcessGroup | None) -> Future[None]:
    folder = _partial_folder(run)
    parts = flattened(state.parts)
    # async_save copies tensors of a GPU to the CPU first, and would write those of a CPU while they change.
    tensors = {
        key: value.detach().clone() if value.device.type == "cpu" else value
        for key, value in parts.items()
        if isinstance(value, Tensor)
    }
    rest = {key: value for key, value in parts.items() if not isinstance(value, Tensor)}
    error: OSError | None = None
    if ranks.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            torch.save(state.document() | {"parts": rest}, folder / SMALL_NAME)
        except (OSError, RuntimeError) as failure:  # torch's own writer raises RuntimeError on a full disk
            error = _as_os_error(failure)
    if ranks.sum(error is not None)[0]:
        failed: Future[None] = Future()
        failed.set_exception(_as_os_error(error))
        return failed
    future: Future[None] = async_save(tensors, checkpoint_id=str(folder), process_group=group)  # type: ignore[assignment]
    return future


def _as_os_error(error: BaseException | None) -> OSError:
    """Return an error of writing as an OSError; None: it was another rank's."""
    if isinstance(error, OSError):
        return error
    return OSError(str(error).splitlines()[0] if error is not None else "another rank could not write its part")


def _copied(value: Any) -> Any:
    """Return nested values with a copy of every tensor on the CPU, which later steps do not change."""
    if isinstance(value, Tensor):
        copy = value.detach().to("cpu")
        return copy.clone() if copy.data_ptr() == value.data_ptr() else copy
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value


def _partial_folder(run: Path) -> Path:
    return run / f".{STATE_FOLDER}.partial"
