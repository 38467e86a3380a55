"""Run the proofs of the service: `make prove-service`. Prints a table, and puts it into docs/service.md with --write.

Load comes from threads of this process; the service is a process of its own with the embedded checkpoint.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.proofs.contract import fuzzed, generated_client
from tests.proofs.endings import failures, sigterm, swaps
from tests.proofs.hostile import mutations
from tests.proofs.load import ROOT, Figures
from tests.proofs.noop import parts
from tests.proofs.pressure import overload, soak
from tests.proofs.serving import batching, beside_litserve, equal_answers

PROOFS: dict[str, Callable[[float], Figures]] = {
    "schemathesis over the OpenAPI document": fuzzed,
    "a client generated from the document": generated_client,
    "3,000 hostile pictures": mutations,
    "64 clients, mixed options, float32": equal_answers,
    "beside LitServe, 64 clients": beside_litserve,
    "CPU ms a request, without a network": parts,
    "batching": batching,
    "ten times overload, half of the clients hang up": overload,
    "SIGTERM under load, twenty times": sigterm,
    "failures": failures,
    "checkpoints swapped under load": swaps,
    "soak at half load, bad clients beside it": soak,
}
_PAGE = ROOT / "docs/service.md"
_TABLE = re.compile(r"(?<=<!-- proofs -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


def main() -> int:
    """Run the proofs; returns 0 where all of them are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--only", metavar="TEXT", help="the proofs whose name has this in it")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/service.md, each in its place")
    options = parser.parse_args()
    met = True
    for name, proof in PROOFS.items():
        if options.only and options.only not in name:
            continue
        began = time.monotonic()
        figures = proof(options.seconds)
        met = met and bool(figures["met"])
        row = _row(name, figures)
        print(row, f"took {time.monotonic() - began:.0f} s", flush=True)
        if options.write:
            _write(name, row)
    return 0 if met else 1


def _row(name: str, figures: Figures) -> str:
    told = "; ".join(f"{key}: {_told(value)}" for key, value in figures.items() if key != "met")
    return f"| {name} | {told} | {'met' if figures['met'] else 'NOT met'} |"


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return " / ".join(map(_told, value))
    return f"{value}"


def _write(name: str, row: str) -> None:
    """Put a row into the page's table: in the place of the proof's former one, in the order of the proofs."""
    page = _PAGE.read_text(encoding="utf-8")
    found = _TABLE.search(page)
    assert found is not None, f"{_PAGE} has no place for the table"
    known = {line.split("|")[1].strip(): line for line in found[0].splitlines()[2:]} | {name: row}
    rows = [known[proof] for proof in PROOFS if proof in known]
    table = "\n".join(["| proof | figures | |", "|---|---|---|", *rows]) + "\n"
    partial = Path(f"{_PAGE}.partial")
    partial.write_text(_TABLE.sub(lambda _: table, page), encoding="utf-8")
    os.replace(partial, _PAGE)


if __name__ == "__main__":
    sys.exit(main())
