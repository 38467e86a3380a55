"""Content negotiation: the response type that the client prefers (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import ServiceError


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """Return the best of the `offered` media types, the first of equal ones; an empty `accept` accepts anything.

    Raises ServiceError (406).
    """
    if not accept.strip():
        return offered[0]
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    best, best_weight = "", 0.0
    for media_type in offered:
        weight = _weight(media_type, ranges)
        if weight > best_weight:
            best, best_weight = media_type, weight
    if not best:
        raise ServiceError("not_acceptable", f"Accept is {accept[:200]!r}; this path produces {', '.join(offered)}")
    return best


def _parse_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return name, min(1.0, max(0.0, float(weight)))
    except ValueError:
        return name, 0.0


def _weight(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that matches."""
    family = media_type.partition("/")[0]
    for pattern in (media_type, f"{family}/*", "*/*"):
        for name, weight in ranges:
            if name == pattern:
                return weight
    return 0.0
