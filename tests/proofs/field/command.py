"""Rows of the field report about `python -m model caption` and how the program starts."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from model import choose_policy
from tests.odd_images import encoded, photo_like
from tests.proofs.field.row import Row
from tests.test_process import ROOT


def caption(*arguments: object) -> tuple[int, str, str]:
    """Run the command in a process of its own; returns exit status, standard output, standard error."""
    command = [sys.executable, "-m", "model", "caption", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


def _images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo_like(64, 48).save(folder / name)


def _sidecar(folder: Path, scratch: Path) -> tuple[bool, str]:
    _images(scratch, "a.jpg", "b.jpg")
    (scratch / "a.txt").write_text("by hand")
    status, _, err = caption("--sidecar", scratch)
    is_kept = (scratch / "a.txt").read_text() == "by hand" and (scratch / "b.txt").exists()
    return status == 0 and is_kept, next(line for line in err.splitlines() if "captioned" in line)


def _wait_policy(folder: Path, scratch: Path) -> tuple[bool, str]:
    code = (
        "import os, runpy, sys; sys.argv = ['x', '--help']\n"
        "try: runpy.run_module({!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    values = {}
    for name in ("model", "evaluation", "corpus", "benchmarks", "train", "service"):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
        result = subprocess.run(
            [sys.executable, "-c", code.format(name)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        values[name] = result.stdout.splitlines()[-1]
    del values["service"]  # its help does not load torch; tests/test_memory.py starts it
    return set(values.values()) == {"PASSIVE"}, ", ".join(f"{name} {value}" for name, value in values.items())


def _dtype(folder: Path, scratch: Path) -> tuple[bool, str]:
    policies = {str(choose_policy("auto", "auto").dtype) for _ in range(20)}
    return len(policies) == 1, f"{policies.pop()} twenty times: {choose_policy('auto', 'auto').reason}"


def _continued(folder: Path, scratch: Path) -> tuple[bool, str]:
    _images(scratch / "images", "a.jpg", "b.jpg", "c.jpg")
    table = scratch / "k.csv"
    caption("--output", table, scratch / "images")
    complete = table.read_text()
    table.write_text(complete[: complete.index("\n", 30) + 8])
    _, _, err = caption("--output", table, scratch / "images")
    return table.read_text() == complete, next(line for line in err.splitlines() if "captioned" in line)


def _pair(folder: Path, scratch: Path) -> tuple[bool, str]:
    _images(scratch, "a.jpg", "a.png", "b.jpg")
    status, _, err = caption("--sidecar", scratch)
    return status == 1 and (scratch / "b.txt").exists(), f"b captioned; {err.count('would both write')} reported"


def _hidden(folder: Path, scratch: Path) -> tuple[bool, str]:
    _images(scratch, ".hidden/x.jpg")
    status, out, err = caption(scratch)
    return (status, out) == (1, ""), f"exit {status}: {err.strip()}"


def _csv(folder: Path, scratch: Path) -> tuple[bool, str]:
    _images(scratch / "images", "a.jpg")
    caption("--output", scratch / "a.csv", scratch / "images")
    with (scratch / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return list(rows[0]) == ["file", "caption"], f"columns {', '.join(rows[0])}; --words adds the words"


def _progress(folder: Path, scratch: Path) -> tuple[bool, str]:
    from model.files.progress import progress_line

    (scratch / "a.png").write_bytes(encoded(photo_like()))
    _, out, err = caption(scratch / "a.png")
    is_clean = out.startswith("{") and "\r" not in err
    return is_clean, f"JSON in a pipe, text on a terminal; '{progress_line(120, 500, 2, 40.0)}' every 10 s"


ROWS = [
    Row("--sidecar where a.txt stands already", "left alone and counted; --overwrite replaces it", _sidecar),
    Row("OMP_WAIT_POLICY without make", "set before torch is loaded, whatever the entry", _wait_policy),
    Row("--dtype auto", "one machine, one type", _dtype),
    Row("--output k.csv killed and run again", "goes on", _continued),
    Row("a.jpg and a.png with --sidecar", "the pair reported, the rest processed", _pair),
    Row(".hidden/x.jpg, an empty folder", "left out; no images and exit 1", _hidden),
    Row("CSV output", "file, caption; words where requested", _csv),
    Row("progress", "text on a terminal, JSON in a pipe; rate and time left", _progress),
]
