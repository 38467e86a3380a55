"""Data from the command line: `python -m corpus scenes FOLDER --count N --seed S`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corpus.errors import DataError
from corpus.scene_files import write_scenes


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    commands = parser.add_subparsers(required=True)
    scenes = commands.add_parser("scenes", help="draw a data set in COCO's format with exact captions and masks")
    scenes.add_argument("folder", type=Path)
    scenes.add_argument("--count", type=int, default=100)
    scenes.add_argument("--seed", type=int, default=0, help="the series: another seed draws other scenes")
    scenes.add_argument("--split", default="train")
    scenes.add_argument("--unseen", action="store_true", help="every scene holds a colour-shape pair that training never shows")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count is {options.count}; it must be at least 1")
    try:
        written = write_scenes(options.folder, options.count, options.seed, split=options.split, unseen=options.unseen)
    except (DataError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    print(f"{written} scenes in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
