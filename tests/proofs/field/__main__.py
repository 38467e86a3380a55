"""Try every row of the field report and print today's result: `make prove-field`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.proofs.field import checkpoints, command, data, images
from tests.proofs.field.row import Row

AREAS: dict[str, list[Row]] = {
    "images": images.ROWS,
    "command line": command.ROWS,
    "data": data.ROWS,
    "checkpoints": checkpoints.ROWS,
}


def main() -> int:
    """Print each row with its result; returns 0 if all of them are as specified."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.field", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the report's inputs")
    parser.add_argument("--only", metavar="TEXT", default="", help="try only the rows whose area or name contains this")
    options = parser.parse_args()
    results = []
    for area, rows in AREAS.items():
        for row in rows:
            if options.only in f"{area} {row.name}":
                results.append(_try(area, row, options.folder.resolve()))
    print(f"{sum(results)} of {len(results)} rows are as specified")
    return 0 if all(results) else 1


def _try(area: str, row: Row, folder: Path) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            is_met, result = row.run(folder, Path(scratch))
        except Exception as error:  # whatever a row raises is its result
            is_met, result = False, f"{type(error).__name__}: {error}"
    print(f"{'as specified' if is_met else 'NOT as specified'} | {area} | {row.name} | {row.expected} | {result}", flush=True)
    return is_met


if __name__ == "__main__":
    sys.exit(main())
