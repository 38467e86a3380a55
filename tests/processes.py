"""Runs of train.py in processes of their own: several ranks, and processes that are killed at a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import torch

import train
from training import LoadedStep

_DEADLINE = 240.0  # seconds: a test that has failed ends
KILLED = -signal.SIGKILL


def run_ranks(
    arguments: Sequence[str],
    count: int = 1,
    *,
    killed_at: int | None = None,
    killed_rank: int = 0,
    number: signal.Signals = signal.SIGKILL,
) -> list[int]:
    """Run train.py on so many ranks; returns the exit status of each.

    `killed_rank` and its workers get a signal when step `killed_at` begins.

    The processes are forked, which spares them their imports, and find each other as those of torchrun do.
    """
    port = _free_port()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(
            target=_run, args=(list(arguments), rank, count, port, killed_at if rank == killed_rank else None, number)
        )
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_DEADLINE)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def state_tensors(run: Path, part: str = "network") -> dict[str, torch.Tensor]:
    """Return a part of the float32 tensors of a run's state."""
    tensors: dict[str, torch.Tensor] = torch.load(run / "state.pt", weights_only=True)["parts"][part]
    return tensors


def largest_difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of tensors of the same names."""
    assert one.keys() == two.keys()
    return max((value - two[name]).abs().max().item() for name, value in one.items())


def _run(arguments: list[str], rank: int, count: int, port: int, killed_at: int | None, number: signal.Signals) -> None:
    os.setsid()  # a group of its own, as torchrun gives each rank
    if count > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RESTART_COUNT": "0",
            "LOCAL_WORLD_SIZE": str(count),
        }  # fmt: skip
    torch.set_num_threads(1)
    if killed_at is not None:
        original = train.Trainer.step

        def step(trainer: train.Trainer, loaded: LoadedStep) -> dict[str, float]:
            if trainer.progress.step == killed_at:
                os.killpg(0, number)
            return original(trainer, loaded)

        train.Trainer.step = step  # type: ignore[method-assign]  # in this process only
    os._exit(train.main(arguments))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
