"""The line of a run's progress: loss, rate, memory, and the time that is left of the whole run."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from model import device_memory
from training.progress import Progress


def memory_used(device: torch.device) -> int:
    """Return the bytes of memory that a rank uses: of its GPU, or of its process on a CPU."""
    memory = device_memory(device)
    if memory:
        return memory["allocated"]
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):  # no Linux: the largest size so far
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else 1024 * size


def bar_text(progress: Progress, values: Mapping[str, float], num_images: int, num_steps: int) -> str:
    """Return what stands behind the progress bar."""
    left = progress.seconds / max(progress.step, 1) * (num_steps - progress.step)
    rate = num_images / max(progress.step_seconds, 1e-9)
    waited = values["data_wait"] / max(progress.step_seconds, 1e-9)
    waits = f", {100 * waited:.0f} % waiting for data" if waited > 0.1 else ""
    return f"loss {progress.mean_loss:.3f}, {rate:.0f} images/s{waits}, {values['memory'] / 1e9:.1f} GB, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 90 else f"{minutes} min"
