"""An object of a source's JSON files, read field by field: each has the expected type, or an error names file and field."""

from __future__ import annotations

from typing import Any

from model.errors import CheckpointError


class SourceConfig:
    """The fields of an object of a file; `name` is its own name there, "" for the whole file.

    A field without a default must exist: none is guessed. Null is the same as missing. Raises CheckpointError.
    """

    def __init__(self, values: Any, name: str = "", *, file: str = "the source's config.json") -> None:
        self._file = file
        if values is None:
            raise CheckpointError(f"{file} lacks {name!r}; add it: no field is guessed")
        if not isinstance(values, dict):
            raise CheckpointError(f"{file} has {values!r:.80} as {name!r}; it must be an object: correct it")
        self.values: dict[str, Any] = values
        self._name = name

    def part(self, name: str) -> SourceConfig:
        """Return an object inside this one."""
        return SourceConfig(self.values.get(name), self._path(name), file=self._file)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def integer(self, name: str, default: int | None = None, *, minimum: int = 0) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 2**31:
            raise self._wrong(name, value, f"an integer, at least {minimum}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:  # NaN too
            raise self._wrong(name, value, "a number")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Return a list of numbers."""
        value = self._value(name, None)
        entries = value if isinstance(value, list | tuple) else ()
        is_valid = all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e30 for one in entries)
        if len(entries) != count or not is_valid:
            raise self._wrong(name, value, f"a list of {count} numbers")
        return tuple(float(one) for one in entries)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers, at least one."""
        value = self._value(name, None)
        entries = value if isinstance(value, list | tuple) else ()
        if not entries or not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31 for one in entries):
            raise self._wrong(name, value, "a list of integers")
        return tuple(entries)

    def shorter_edge(self, name: str) -> int | None:
        """Return the length of the shorter edge, None if the field is a height and a width."""
        value = self.values.get(name)
        edge = value.get("shortest_edge") if isinstance(value, dict) else None
        return edge if isinstance(edge, int) and not isinstance(edge, bool) and 0 < edge < 2**31 else None

    def size(self, name: str) -> tuple[int, int]:
        """Return a height and a width: a list of both, an object, or one integer for both."""
        value = self.values.get(name)
        if isinstance(value, dict) and value.keys() >= {"height", "width"}:
            value = [value["height"], value["width"]]
        elif isinstance(value, int):
            value = [value, value]
        if value is None:
            self._value(name, None)
        sides = value if isinstance(value, list | tuple) else []
        if len(sides) != 2 or not all(isinstance(side, int) and 0 < side < 2**31 for side in sides):
            raise self._wrong(name, value, "a height and a width")
        return int(sides[0]), int(sides[1])

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None and default is None:
            raise CheckpointError(f"{self._file} lacks {self._path(name)!r}; add it: no field is guessed")
        return default if value is None else value

    def _wrong(self, name: str, value: Any, expected: str) -> CheckpointError:
        shown = f"{value!r:.80}"
        return CheckpointError(f"{self._file} has {shown} as {self._path(name)!r}; it must be {expected}: correct it")

    def _path(self, name: str) -> str:
        return f"{self._name}.{name}" if self._name else name
