"""JSON of responses with large maps, without blocking other threads for long."""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from torch import Tensor

_DIGITS = 6  # significant digits of a map's values


def encode_json(body: dict[str, Any] | list[Any]) -> bytes:
    """Return a body as JSON. Maps, its only arrays, are encoded one by one.

    So no call holds the interpreter's lock for longer than one map takes, 15 ms for the largest; json.dumps of the
    complete body took a second.
    """
    maps: list[NDArray[np.float64]] = []
    mark = secrets.token_hex(8)  # which no text of a client can contain

    def collect(value: Any) -> str:
        maps.append(value)
        return mark

    head, *rest = to_json(body, fallback=collect).split(f'"values":"{mark}"'.encode())
    pieces = [head]
    for values, after in zip(maps, rest, strict=True):
        pieces += [b'"values":', to_json(values.tolist()), after]
    return b"".join(pieces)


def finite(value: float) -> float:
    """Return a number that JSON can hold. Raises ValueError: a network that returns another one is broken."""
    if not math.isfinite(value):
        raise ValueError(f"the network returned {value}")
    return value


def map_values(values: Tensor) -> NDArray[np.float64]:
    """Round a map to significant digits, so that it prints short. NumPy takes a twentieth of torch's time for a small map."""
    exact = values.double().numpy()
    finite(float(exact.sum()))
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.maximum(exact, 1e-300))))
    return np.round(exact * scale) / scale
