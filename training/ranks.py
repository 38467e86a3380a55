"""The processes (ranks) of a run: one, or several that torchrun started. Sums and messages between them go over gloo on CPUs."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.utils.api import get_env_variable_or_raise
from torch.distributed.rendezvous import rendezvous

from model import ConfigError

_T = TypeVar("_T")
# Variables that torchrun sets.
_RESTARTS, _LOCAL_COUNT = "TORCHELASTIC_RESTART_COUNT", "LOCAL_WORLD_SIZE"
# A rank waits so long for the others, which may compute features. One that has ended is noticed at once.
_TIMEOUT = datetime.timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's rank, their count, and both on its own machine, where the rank is the number of its GPU."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and speaks for all."""
        return self.rank == 0

    def part(self, items: Sequence[_T]) -> list[_T]:
        """Return this rank's share of the items: every item is in the share of one rank."""
        return list(items[self.rank :: self.count])

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over all ranks."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        result: list[float] = total.tolist()
        return result

    def gather(self, value: _T) -> list[_T]:
        """Return every rank's value, in the order of the ranks."""
        values: list[Any] = [value]
        if self.count > 1:
            values = [None] * self.count
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: _T) -> _T:
        """Return the first rank's value."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.sum(0.0)

    def device(self, name: str) -> str:
        """Return the name of this rank's device: with `auto` or `cuda` each rank of a machine has a GPU of its own.

        Raises ConfigError if the name is that of one GPU, or if there are more ranks than GPUs.
        """
        if self.count == 1 or name in ("cpu", "mps"):
            return name
        num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if name == "auto" and not num_gpus:
            return "cpu"
        if name not in ("auto", "cuda"):
            raise ConfigError(
                f"--device {name} is one GPU for {self.count} ranks; use --device cuda: each rank takes one of its own"
            )
        if self.local_rank >= num_gpus:
            raise ConfigError(
                f"rank {self.rank} has no GPU of its own: this machine has {num_gpus}; use --nproc-per-node {max(num_gpus, 1)}, "
                "or --device cpu"
            )
        return f"cuda:{self.local_rank}"


@contextmanager
def running_ranks() -> Iterator[Ranks]:
    """Join the other ranks if torchrun started this process, and leave them at the end. Only the first one prints."""
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    has_gpu = torch.cuda.is_available()
    store, rank, count = next(rendezvous("env://", timeout=_TIMEOUT))
    # After a failure torchrun starts new processes with the store of the old ones, whose addresses are still in it (torch 2.13).
    store = PrefixStore(f"restart {get_env_variable_or_raise(_RESTARTS)}", store)
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    ranks = Ranks(
        dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank(), int(get_env_variable_or_raise(_LOCAL_COUNT))
    )
    if has_gpu and ranks.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(ranks.local_rank)
    try:
        if ranks.is_first:
            yield ranks
        else:
            with redirect_stdout(StringIO()):
                yield ranks
    finally:
        dist.destroy_process_group()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's random state for a step: dropout and samples follow from the seed, the step's number and the rank.

    A resumed run therefore draws what an uninterrupted one does.
    """
    digest = hashlib.sha256(f"step {seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def is_started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return bool(dist.is_torchelastic_launched())
