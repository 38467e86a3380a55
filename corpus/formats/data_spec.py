"""What a user writes for data: PATH, FORMAT:PATH or FORMAT:PATH?OPTION=VALUE&OPTION=VALUE."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from braceexpand import braceexpand

from corpus.errors import DataError
from corpus.formats.registry import FORMATS

_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_TRUNCATED = "truncated"
_OTHER_FILES = {
    ".xlsx": "save it as CSV",
    ".xls": "save it as CSV",
    ".parquet": "save it as CSV, or as JSON lines with the images in files",
    ".arrow": "save it as CSV, or as JSON lines with the images in files",
}


@dataclass(frozen=True, slots=True)
class DataSpec:
    """The parts of a specification; `kind` is the name of a format, "" if it must be detected.

    `options` names fields of the data; `accept_truncated` is the option truncated=accept, which every format has.
    """

    kind: str
    paths: list[Path]
    options: dict[str, str]
    accept_truncated: bool = False


def parse_spec(data: str) -> DataSpec:
    """Return the parts of a specification. Raises DataError for a missing path, and for an unknown format or option."""
    name, _, rest = data.partition(":")
    kind, text = (name, rest) if rest and name in FORMATS else ("", data)
    query = ""
    if not Path(text).exists() and "?" in text:
        text, _, query = text.rpartition("?")
    if query and not kind and Path(text).exists():
        raise DataError(f"{data!r} names columns but no format; write csv:{data} or jsonl:{data}")
    paths = [Path(part) for part in _expand_braces(text)]
    if missing := [path for path in paths if not path.exists()]:
        if not kind and rest and name.isalnum():
            raise DataError(
                f"{name!r} is not a format of files; {_suggestion(name, list(FORMATS))}use one of {', '.join(FORMATS)} "
                "(training also has scenes and positions)"
            )
        raise DataError(f"{str(missing[0])!r} does not exist; name a captions file or a folder with captions and images")
    for path in paths:
        if path.is_file():
            check_readable_kind(path)
    options = _parse_options(kind, query, data)
    truncated = options.pop(_TRUNCATED, "")
    if truncated not in ("", "accept"):
        raise DataError(f"{data!r}: {_TRUNCATED} is {truncated!r}; write {_TRUNCATED}=accept, or leave it out")
    return DataSpec(kind, paths, options, bool(truncated))


def check_readable_kind(path: Path) -> None:
    """Raise DataError if a file is an archive or of another program, with what to do."""
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise DataError(f"{path} is an archive; unpack it, and name the folder with captions and images")
    if suffix in _OTHER_FILES:
        raise DataError(f"{path} is a {suffix} file, which is not read; {_OTHER_FILES[suffix]}")


def _parse_options(kind: str, query: str, data: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        known = (*FORMATS[kind].options, _TRUNCATED)
        if name not in known:
            advice = _suggestion(name, known) or "remove it"
            raise DataError(f"{data!r}: {kind} has no option {name!r}; it has {', '.join(known)}: {advice}")
        if not equals or not value.strip():
            raise DataError(f"{data!r}: the option {name!r} has no value; write {name}=NAME, the name of the field in the data")
        if name in options:
            raise DataError(f"{data!r} has the option {name!r} twice; write it once")
        options[name] = value.strip()
    return options


def _suggestion(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return the nearest known name as a part of a message, "" if none is near."""
    nearest = get_close_matches(name, known, 1)
    return f"did you mean {nearest[0]}? " if nearest else ""


def _expand_braces(text: str) -> list[str]:
    """Return the paths of a pattern such as train-{0000..0003}.tar."""
    if Path(text).exists() or "{" not in text:
        return [text]
    try:
        return list(braceexpand(text))
    except ValueError as error:
        raise DataError(f"{text!r} has unbalanced braces; write train-{{0000..0003}}.tar") from error
