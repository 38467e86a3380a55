"""Try every row of the field report and print today's result: `make prove-field`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.proofs.field import checkpoints, command, data, http, images, maps, training
from tests.proofs.field.row import Row

_FAILED = "NOT as specified"
AREAS: dict[str, list[Row]] = {
    "images": images.ROWS,
    "command line": command.ROWS,
    "data": data.ROWS,
    "checkpoints": checkpoints.ROWS,
    "training": training.ROWS,
    "HTTP": http.ROWS,
    "weights": maps.ROWS,
}


def main() -> int:
    """Print each row with its result; returns 0 if all of them are as specified, or have a reason not to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.field", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the report's inputs")
    parser.add_argument("--only", metavar="TEXT", default="", help="try only the rows whose area or name contains this")
    options = parser.parse_args()
    results: list[str] = []
    for area, rows in AREAS.items():
        for row in rows:
            if options.only in f"{area} {row.name}":
                results.append(_try(area, row, options.folder.resolve()))
    print(", ".join(f"{results.count(state)} {state}" for state in dict.fromkeys(results)))
    return 1 if _FAILED in results else 0


def _try(area: str, row: Row, folder: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            is_met, result = row.run(folder, Path(scratch))
        except Exception as error:  # whatever a row raises is its result
            is_met, result = False, f"{type(error).__name__}: {error}"
    state = "as specified" if is_met else "with a reason" if row.reason else _FAILED
    reason = f" | docs/decisions.md: {row.reason}" if state == "with a reason" else ""
    print(f"{state} | {area} | {row.name} | {row.expected} | {result}{reason}", flush=True)
    return state


if __name__ == "__main__":
    sys.exit(main())
