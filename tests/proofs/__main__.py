"""Run the proofs of the service: `make prove-service`. Prints their figures; --write puts them into docs/service.md.

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
from tests.proofs.serving import batching, compared_with_litserve, equal_responses
from tests.proofs.silent import silent_senders

PROOFS: dict[str, Callable[[float], Figures]] = {
    "schemathesis over the OpenAPI document": fuzzed,
    "a client generated from the document": generated_client,
    "3,000 hostile images": mutations,
    "64 clients, mixed options, float32": equal_responses,
    "compared with LitServe, 64 clients": compared_with_litserve,
    "CPU ms per request, without a network": parts,
    "batching": batching,
    "ten times overload, half of the clients hang up": overload,
    "silent senders of large bodies": silent_senders,
    "SIGTERM under load, twenty times": sigterm,
    "failures": failures,
    "checkpoints swapped under load": swaps,
    "soak at half load with bad clients": soak,
}
_PAGE = ROOT / "docs/service.md"
_SECTION = re.compile(r"(?<=<!-- proofs -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
_BLOCK = re.compile(r"^\*\*(?P<name>.+): (?:NOT )?met\*\*\n(?:(?!\*\*).*\n)*", re.MULTILINE)


def main() -> int:
    """Run the proofs; returns 0 if all of them are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each load (default: 60)")
    parser.add_argument("--only", metavar="TEXT", help="run only the proofs whose name contains this")
    parser.add_argument("--write", action="store_true", help="replace the figures of these proofs in docs/service.md")
    options = parser.parse_args()
    all_met = True
    for name, proof in PROOFS.items():
        if options.only and options.only not in name:
            continue
        started = time.monotonic()
        figures = proof(options.seconds)
        all_met = all_met and bool(figures["met"])
        block = _block(name, figures)
        print(f"{block}({time.monotonic() - started:.0f} s)\n", flush=True)
        if options.write:
            _write(name, block)
    return 0 if all_met else 1


def _block(name: str, figures: Figures) -> str:
    """Return the Markdown of a proof: its name and result, and a list of its figures."""
    lines = [f"- {key}: {_shown(value)}" for key, value in figures.items() if key != "met"]
    return "\n".join([f"**{name}: {'met' if figures['met'] else 'NOT met'}**", "", *lines]) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return " / ".join(map(_shown, value))
    return f"{value}"


def _write(name: str, block: str) -> None:
    """Replace a proof's block of the page, or add it; the blocks are in the order of the proofs."""
    page = _PAGE.read_text(encoding="utf-8")
    section = _SECTION.search(page)
    assert section is not None, f"{_PAGE} has no section <!-- proofs --> … <!-- end -->"
    blocks = {match["name"]: match[0].strip() + "\n" for match in _BLOCK.finditer(section[0])} | {name: block}
    text = "\n".join(blocks[proof] for proof in PROOFS if proof in blocks)
    partial = Path(f"{_PAGE}.partial")
    partial.write_text(_SECTION.sub(lambda _: text, page), encoding="utf-8")
    os.replace(partial, _PAGE)


if __name__ == "__main__":
    sys.exit(main())
