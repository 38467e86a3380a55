"""The learning rate over a run: linear warm-up, then a cosine to a small share of the peak."""

import math

FLOOR = 0.02  # share of the peak that the cosine ends at


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the peak rate at `step` of `steps` (Loshchilov and Hutter 2017, section 3)."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
