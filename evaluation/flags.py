"""Command-line flags that several commands share, and types of flag values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from model import DEFAULT_CHECKPOINT

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Add --device, as `Captioner.load` accepts it."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto, which prefers a GPU)")


def add_dtype_flag(parser: argparse.ArgumentParser) -> None:
    """Add --dtype, as `Captioner.load` accepts it."""
    parser.add_argument("--dtype", choices=_DTYPES, default="auto", help="numeric type (default: auto, by device and processor)")


def add_checkpoint_flag(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint for commands that take one checkpoint."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FOLDER|hub:ID",
        help="checkpoint (default: the embedded one)",
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add --json, which replaces tables by one object."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line instead of tables")


def int_at_least(minimum: int) -> Callable[[str], int]:
    """Return an argparse type for integers that are at least `minimum`."""

    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not valid; it must be an integer, at least {minimum}")
        return int(text)

    return parse
