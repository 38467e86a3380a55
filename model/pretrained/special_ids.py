"""The special ids of a source, as `generate` chooses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids: the start of a caption, what ends one (at least one id), and the padding of a row."""

    start: int
    ends: tuple[int, ...]
    pad: int
    forced_start: int | None = None  # follows the start token
    forced_end: int | None = None  # ends a caption at its last token

    def fields(self) -> dict[str, Any]:
        """Return the fields of a DecoderConfig."""
        return {
            "bos_token_id": self.start,
            "eos_token_id": self.ends[0],
            "more_eos_token_ids": self.ends[1:],
            "pad_token_id": self.pad,
            "forced_bos_token_id": self.forced_start,
            "forced_eos_token_id": self.forced_end,
        }


def special_ids(generation: dict[str, Any], *fallbacks: dict[str, Any]) -> SpecialIds:
    """Return the ids of an encoder-decoder: those of its generation settings, else the first that config.json has.

    The start is decoder_start_token_id, else bos_token_id; without a padding id the end pads. Raises CheckpointError.
    """
    parts = (generation, *fallbacks)

    def ids(*names: str) -> tuple[int, ...]:
        values = (part[name] for part in parts for name in names if part.get(name) is not None)
        value = next(values, ())
        several = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in several):
            raise CheckpointError(f"the source's {names[0]} is {value!r:.80}; it must be an id, or a list of ids: correct it")
        return tuple(dict.fromkeys(several))

    starts, ends = ids("decoder_start_token_id", "bos_token_id"), ids("eos_token_id")
    pads = ids("pad_token_id") or ends[:1]
    for name, chosen in (("decoder_start_token_id", starts), ("eos_token_id", ends), ("pad_token_id", pads)):
        if not chosen or (len(chosen) > 1 and name != "eos_token_id"):
            raise CheckpointError(
                f"the source's {name} is {list(chosen) or None}; it must be one id: add it to generation_config.json"
            )
    forced = []
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        value = generation.get(name)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise CheckpointError(f"the source's {name} is {value!r:.80}; it must be one id: correct it")
        forced.append(value)
    if forced[1] is not None and forced[1] not in ends:
        raise CheckpointError(
            f"the source's forced_eos_token_id is {forced[1]}, which ends no caption ({list(ends)}); correct it"
        )
    return SpecialIds(starts[0], ends, pads[0], *forced)
