"""What the machine offers: threads by its quota, and the numeric type that is quickest on it."""

from __future__ import annotations

import copy
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from model.decoder import TextDecoder
from model.errors import ConfigError

DtypeName = Literal["auto", "float32", "bfloat16"]

_LARGE = 30_000_000  # weights of a decoder that no processor's own cache holds in float32

_ROWS = 8
_QUOTA_FILES = ("/sys/fs/cgroup/cpu.max",)
_QUOTA_FILE_V1 = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")


@dataclass(frozen=True, slots=True)
class Precision:
    """The chosen numeric type and why."""

    dtype: torch.dtype
    reason: str


def available_threads() -> int:
    """Return the cores that this process may keep busy: the container's CPU quota, else its affinity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_quota() or cores)))


def use_threads(count: int | None = None) -> int:
    """Set torch's threads (None: `available_threads`) and return their number."""
    count = count or available_threads()
    torch.set_num_threads(count)
    return count


def choose_precision(wanted: DtypeName, *, device: str = "cpu", width: int = 384, rows: int = 256) -> Precision:
    """Return the numeric type to compute in; "auto" times a perceptron block in float32 and in bfloat16.

    bfloat16 is 2 to 4 times faster where the processor has matrix units for it and several times slower where it has
    not, so it is measured and not looked up.
    """
    if wanted == "float32":
        return Precision(torch.float32, "float32 as asked")
    if wanted == "bfloat16":
        return Precision(torch.bfloat16, "bfloat16 as asked")
    if wanted != "auto":
        raise ConfigError(f"dtype is {wanted!r}; it must be 'auto', 'float32' or 'bfloat16'")
    times = {dtype: _trial(dtype, device, width, rows) for dtype in (torch.float32, torch.bfloat16)}
    ratio = times[torch.float32] / times[torch.bfloat16]
    # Below 1.2 the gain is within noise and float32 is the more exact of the two.
    dtype = torch.bfloat16 if ratio > 1.2 else torch.float32
    return Precision(dtype, f"timed trial: bfloat16 is {ratio:.1f} times as fast as float32 here")


@torch.inference_mode()
def choose_decoder_precision(decoder: TextDecoder, encoder: Precision) -> Precision:
    """Return the numeric type of a decoder whose encoder computes in `encoder`: float32, or bfloat16 where that is quicker.

    A step of a few rows reads every weight once and is as quick as memory is: large decoders gain from halved weights, small
    ones, which stay in the processor's cache, lose. So only large ones are tried, as many rows at a time as two beams of
    three and two greedy captions have.
    """
    weights = sum(value.numel() for value in decoder.parameters())
    if encoder.dtype == torch.float32 or weights < _LARGE:
        return Precision(torch.float32, "float32")
    times = []
    halved = copy.deepcopy(decoder).to(torch.bfloat16)
    halved.pack()
    for tried in (decoder, halved):
        kind = tried.token_embedding.weight.dtype
        state = tried.start(torch.zeros(1, 64, decoder.config.image_width, dtype=kind), (0,) * _ROWS)
        samples = []
        for _ in range(5):
            started = time.perf_counter()
            tried(torch.zeros(_ROWS, 1, dtype=torch.long), state)
            samples.append(time.perf_counter() - started)
        times.append(statistics.median(samples[2:]))
    ratio = times[0] / times[1]
    return Precision(torch.bfloat16 if ratio > 1.2 else torch.float32, f"bfloat16 is {ratio:.1f} times as fast as float32")


@torch.inference_mode()
def _trial(dtype: torch.dtype, device: str, width: int, rows: int) -> float:
    block = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)).to(device, dtype)
    tokens = torch.ones(rows, width, device=device, dtype=dtype)
    samples = []
    for _ in range(12):
        started = time.perf_counter()
        block(tokens)
        if device != "cpu":
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - started)
    return statistics.median(samples[4:])  # the first calls set up kernels


def _quota() -> float | None:
    """Return the cgroup's CPU quota in cores, None where there is none."""
    try:
        quota, period = Path(_QUOTA_FILES[0]).read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us, period_us = (int(Path(name).read_text()) for name in _QUOTA_FILE_V1)
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None
