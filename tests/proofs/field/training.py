"""Rows of the field report about training: the first run of a beginner, files that cannot be used, and resumed runs."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shlex
from pathlib import Path

import torch

import train
from corpus import captions_of, draw_scene
from model import DEFAULT_CHECKPOINT, load_checkpoint, read_config
from tests.proofs.field.row import Row

_QUICK = ["--num-views", "1", "--batch-size", "10", "--threads", "1"]


def _write_images(folder: Path, count: int) -> Path:
    """Write images of scenes and a CSV with their captions; returns the CSV."""
    lines = ["image,caption"]
    for number in range(count):
        scene = draw_scene(77, number)
        scene.render().save(folder / f"{number}.png")
        lines.append(f'{number}.png,"{captions_of(scene, random.Random(number))[0].text}"')
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "captions.csv"


def _train(*arguments: str | Path) -> tuple[int, str]:
    """Run train.py; returns its exit status and all that it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = train.main([str(argument) for argument in arguments])
    return status, out.getvalue() + err.getvalue()


def _start(data: Path, run: Path, *flags: str) -> tuple[int, str]:
    return _train("--data", data, "--run", run, "--init", DEFAULT_CHECKPOINT, *_QUICK, *flags)


def _command(text: str) -> list[str]:
    """Return the arguments of the command that a message recommends."""
    return shlex.split(next(line for line in text.splitlines() if line.startswith("    python train.py")))[2:]


def _steps(run: Path) -> list[int]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["step"] for row in rows if "loss" in row]


def _first_run(_: Path, scratch: Path) -> tuple[bool, str]:
    data, run = _write_images(scratch, 40), scratch / "run"
    status, refusal = _train("--data", data, "--run", run)
    better = _command(refusal)
    status_of_better, output = _train(*better, *_QUICK, "--max-steps", "8")
    ids = (run / "validation_ids.txt").read_text(encoding="utf-8").split()
    is_met = status == 2 and status_of_better == 0 and len(ids) == 8 and "--init" in better and "\nNext:" in output
    reason = refusal.partition("train.py: ")[2].split(": it")[0]
    return is_met, f"{status}: {reason}; its command exits {status_of_better}, {len(ids)} images are held out"


def _init_is_kept(_: Path, scratch: Path) -> tuple[bool, str]:
    status, output = _start(_write_images(scratch, 12), scratch / "run", "--max-steps", "1")
    old, new = read_config(DEFAULT_CHECKPOINT), read_config(scratch / "run/last")
    line = next((line for line in output.splitlines() if ": kept: " in line), "no line")
    is_met = (
        status == 0 and new.maps.heads == old.maps.heads and new.generation == old.generation and "not kept: pointing" in line
    )
    return is_met, line.partition(": ")[2]


def _missing_image(_: Path, scratch: Path) -> tuple[bool, str]:
    data = _write_images(scratch, 41)
    (scratch / "7.png").unlink()
    status, output = _start(data, scratch / "run", "--max-steps", "1")
    status_of_advice, advised = _train(*_command(output))
    line = next((line for line in advised.splitlines() if "cannot be used" in line), "no line")
    is_met = (status, status_of_advice) == (1, 0) and "7.png" in advised and ": 1 record cannot be used" in line
    return is_met, line.partition(": ")[2]


def _broken_image(_: Path, scratch: Path) -> tuple[bool, str]:
    data = _write_images(scratch, 12)
    (scratch / "7.png").write_bytes((scratch / "7.png").read_bytes()[:2000])
    status, output = _start(data, scratch / "run", "--max-steps", "1", "--no-check")
    line = next((line.strip() for line in output.splitlines() if "7.png" in line), "no line")
    return status == 0 and "line 9" in line, line.replace(str(scratch), "")


def _longer_run(_: Path, scratch: Path) -> tuple[bool, str]:
    data, run = _write_images(scratch, 8), scratch / "run"
    _start(data, run, "--epochs", "8", "--val-share", "0")
    status, output = _train("--run", run, "--resume", "--epochs", "10")
    refused, message = _train("--run", run, "--resume", "--lr", "0.1")
    line = next(line for line in output.splitlines() if "continues" in line)
    is_met = status == 0 and _steps(run) == list(range(1, 11)) and refused == 2 and "--lr 0.1" in message
    return is_met, f"{line.removeprefix(str(run))}; --lr: {message.split(' of ')[0].removeprefix('train.py: ')}"


def _folder(_: Path, scratch: Path) -> tuple[bool, str]:
    run = scratch / "run"
    _start(_write_images(scratch, 12), run, "--max-steps", "2")
    parts = torch.load(run / "state.pt", weights_only=True)["parts"]
    network = load_checkpoint(run / "last").network
    frozen = {name for name in network.state_dict() if "patch_embed.backbone." in name}
    kept = frozen & (parts["network"].keys() | parts["average"].keys())
    megabytes = (run / "state.pt").stat().st_size / 1e6
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    is_met = not kept and bool(frozen) and any("CIDEr" in row for row in rows) and _steps(run) == [1, 2]
    return is_met, f"{len(rows)} rows in log.jsonl; state.pt {megabytes:.0f} MB without {len(frozen)} frozen tensors"


ROWS: list[Row] = [
    Row(
        "40 images in a CSV, trained as the README says",
        "refused with a command that starts from a checkpoint, which holds images out and ends with what to do next",
        _first_run,
    ),
    Row("train.py --init model/default", "map heads and decoding defaults are kept, what is not kept is printed", _init_is_kept),
    Row("one missing image of 41", "the command that the error recommends leaves it out, names and counts it", _missing_image),
    Row("one broken image with --no-check", "left out; file and record are named", _broken_image),
    Row("--resume --epochs 10 of a finished run of 8", "goes on to 10 epochs; a flag that cannot change is refused", _longer_run),
    Row("a run's folder", "a log of losses and scores; frozen weights are not in the state", _folder),
]
