"""Benchmarks: `python -m benchmarks speed | golden | streams | ablation | training | loading`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.commands import add_ablation_command, add_golden_command, add_speed_command, add_streams_command
from benchmarks.loading import add_loading_command
from benchmarks.training_speed import add_training_command
from evaluation import figures_text
from model import CaptionerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 all done, 1 bad data or unequal results, 2 wrong use."""
    options = make_parser().parse_args(arguments)
    try:
        figures: dict[str, Any] = options.run(options)
    except (CaptionerError, OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, ensure_ascii=False) if options.json else figures_text(figures, exact=True))
    if not figures.get("equal", True):
        print("benchmarks: results differ from those of the reference", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(required=True)
    add_speed_command(subparsers)
    add_golden_command(subparsers)
    add_streams_command(subparsers)
    add_ablation_command(subparsers)
    add_training_command(subparsers)
    add_loading_command(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
