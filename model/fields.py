"""Configuration fields that are declared once: default, range, unit and help, and what is derived from them.

Command-line flags, the HTTP schema, the tables in docs/, the reading of config.json and the range checks all come from the
metadata of a dataclass field.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from model.errors import ConfigError

_T = TypeVar("_T")
_UNIONS = (types.UnionType, typing.Union)


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One declared field of a configuration."""

    name: str
    hint: Any  # its type
    default: Any
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...]  # the values that it can have, () where they are not listed

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def range_text(self) -> str:
        """The allowed values, for people: "1 to 8", "at least 1", "greedy, beam, sample"."""
        if self.choices:
            return ", ".join(map(_shown, self.choices))
        if self.minimum is not None and self.maximum is not None:
            bounds = (self.minimum, self.maximum)
            return "64-bit integer" if bounds == (-(2**63), 2**63 - 1) else f"{bounds[0]:g} to {bounds[1]:g}"
        if self.minimum is not None:
            return f"at least {self.minimum:g}"
        return {str: "text", float: "number", int: "integer"}.get(self.hint, "")

    @property
    def default_text(self) -> str:
        return _shown(self.default) or "none"

    def check(self, value: Any) -> None:
        """Raises ConfigError, which begins with the field's name, for a value out of range."""
        if value is None and type(None) in typing.get_args(self.hint):
            return
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name} is {value!r}; it must be one of {', '.join(map(repr, self.choices))}")
        if (self.minimum is not None or self.maximum is not None) and not isinstance(value, int | float):
            raise ConfigError(f"{self.name} is {value!r}; it must be a number")
        low = float("-inf") if self.minimum is None else self.minimum
        high = float("inf") if self.maximum is None else self.maximum
        if isinstance(value, int | float) and not low <= value <= high:  # a NaN fails as well
            bounds = f"at least {low:g}" if self.maximum is None else f"between {low:g} and {high:g}"
            raise ConfigError(f"{self.name} is {value}; it must be {bounds}")


def declared(
    default: Any, help: str, *, unit: str = "", minimum: float | None = None, maximum: float | None = None
) -> Any:  # Any: the field's own annotation is its type
    """Return a dataclass field with its default, help, unit and range."""
    metadata = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


def fields_of(kind: type[Any]) -> tuple[FieldInfo, ...]:
    """Return the fields that `kind` declares with `declared`, in order."""
    hashable: Any = kind  # mypy holds that a type[Any] is not
    return _fields_of(hashable)


@functools.cache  # options are checked for every request, and type hints are evaluated from their text
def _fields_of(kind: Any) -> tuple[FieldInfo, ...]:
    hints = typing.get_type_hints(kind)
    return tuple(
        FieldInfo(entry.name, hints[entry.name], entry.default, **entry.metadata, choices=_choices(hints[entry.name]))
        for entry in dataclasses.fields(kind)
        if "help" in entry.metadata
    )


def require_at_least(name: str, value: int, minimum: int) -> None:
    """Raises ConfigError, which begins with the name, for a value below the minimum."""
    if value < minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}")


def check_fields(values: Any) -> None:
    """Check every declared field of a dataclass instance. Raises ConfigError that begins with the field's name."""
    for info in fields_of(type(values)):
        info.check(getattr(values, info.name))


def add_flags(parser: Any, kind: type[Any], *, names: Iterable[str] | None = None, default_note: str = "") -> None:
    """Add a flag for each declared field to an argparse parser or group.

    A flag that is not used is absent from the parsed arguments. `names` limits the fields; `default_note` replaces the default in
    the help, such as "the checkpoint's".
    """
    for info in fields_of(kind):
        if names is None or info.name in names:
            _add_flag(parser, info, default_note or info.default_text)


def flag_values(kind: type[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the declared fields whose flags were used."""
    return {info.name: getattr(options, info.name) for info in fields_of(kind) if hasattr(options, info.name)}


def markdown_table(kind: type[Any], *, flags: bool = False) -> str:
    """Return the declared fields as a Markdown table: name, values, default, meaning."""
    rows = ["| name | values | default | meaning |", "|---|---|---|---|"]
    for info in fields_of(kind):
        name = info.flag if flags else info.name
        values = f"{info.range_text} {info.unit}".strip()
        rows.append(f"| `{name}` | {values} | {info.default_text} | {info.help} |")
    return "\n".join(rows)


def to_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[_T], values: Any, where: str = "config") -> _T:
    """Build the dataclass `kind` from JSON values; a missing field takes its default.

    Raises ConfigError that names an unknown field, or one whose value has another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {type(values).__name__}; it must be an object with the fields of {kind.__name__}")
    fields = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - fields):
        raise ConfigError(f"{where} has unknown fields {', '.join(unknown)}; {kind.__name__} has {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _add_flag(parser: Any, info: FieldInfo, default: str) -> None:
    values = f"{info.range_text} {info.unit}".strip()
    text = f"{info.help} ({values + '; ' if values and not info.choices else ''}default: {default})".replace("%", "%%")
    shared: dict[str, Any] = {"dest": info.name, "default": argparse.SUPPRESS, "help": text}
    if info.hint is bool:
        parser.add_argument(info.flag, action=argparse.BooleanOptionalAction, **shared)
    elif info.choices:
        texts = {_shown(choice): choice for choice in info.choices}
        parser.add_argument(info.flag, type=_chooser(texts), metavar="{" + ",".join(texts) + "}", **shared)
    elif typing.get_origin(info.hint) is tuple:
        element = typing.get_args(info.hint)[0]
        many: dict[str, Any] = {"action": "append"} if element is str else {"nargs": "+"}
        parser.add_argument(info.flag, type=element, metavar=info.name.upper(), **many, **shared)
    else:
        kind = next((arm for arm in typing.get_args(info.hint) if arm is not type(None)), info.hint)  # float of float | None
        parser.add_argument(info.flag, type=kind, metavar=info.name.upper(), **shared)


def _chooser(texts: dict[str, Any]) -> Any:
    def choose(text: str) -> Any:
        if text not in texts:
            raise argparse.ArgumentTypeError(f"{text!r} must be one of {', '.join(texts)}")
        return texts[text]

    return choose


def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the values of a type, () where they are not listed."""
    if hint is bool:
        return (False, True)
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in _UNIONS:
        arms = [_choices(arm) for arm in typing.get_args(hint)]
        return tuple(value for arm in arms for value in arm) if all(arms) else ()
    return ()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None or value is dataclasses.MISSING else str(value)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}; it must be a list")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f"{where} has {len(value)} entries; it must have {len(inner)}")
        return tuple(
            _value(kind, entry, f"{where}[{index}]") for index, (kind, entry) in enumerate(zip(inner, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; it must be an object")
        return {name: _value(arguments[1], entry, f"{where}.{name}") for name, entry in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin in _UNIONS:
        for arm in arguments:
            try:
                return _value(arm, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} is {value!r}; it must be {' or '.join(map(_type_name, arguments))}")
    if hint is type(None):
        if value is not None:
            raise ConfigError(f"{where} is {value!r}; it must be null")
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r}; it must be {_type_name(hint)}")
    return value


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return "null" if hint is type(None) else str(hint.__name__)
