"""Which of the types that a path can give the client wants most (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import Problem


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """Return the best of `offered`, the first of equals; an empty `accept` takes anything. Raises Problem (406)."""
    if not accept.strip():
        return offered[0]
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    best, most = "", 0.0
    for kind in offered:
        weight = _weight(kind, ranges)
        if weight > most:
            best, most = kind, weight
    if not best:
        raise Problem("not_acceptable", f"Accept is {accept[:200]!r}; this path gives {', '.join(offered)}")
    return best


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return name, min(1.0, max(0.0, float(weight)))
    except ValueError:
        return name, 0.0


def _weight(kind: str, ranges: list[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that `kind` falls into."""
    family = kind.partition("/")[0]
    for pattern in (kind, f"{family}/*", "*/*"):
        for name, weight in ranges:
            if name == pattern:
                return weight
    return 0.0
