"""The log of a run: RUN/log.jsonl with every step and every validation, and the same as curves for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from training.progress import Progress

LOG_NAME = "log.jsonl"
CURVES_NAME = "curves"


class RunLog:
    """Rows of one run, each written when it is known. A resumed run continues the file behind the step that it starts from."""

    def __init__(self, run: Path, step: int, *, is_active: bool = True) -> None:
        """Open the log of a run that has done `step` steps: rows of later steps are removed, because they are repeated.

        Of several ranks only the first one has an active log.
        """
        self._file: TextIO | None = None
        self._curves: Any = None
        if not is_active:
            return
        path = run / LOG_NAME
        kept = [row for row in read_log(path) if row["step"] <= step] if step else []
        partial = path.with_suffix(".jsonl.partial")
        partial.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")
        self._curves = _curves(run / CURVES_NAME, step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files; everything was written before."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._curves is not None:
            self._curves.close()

    def write_step(self, progress: Progress, num_images: int, values: dict[str, float]) -> None:
        """Write the row of the step that was just done; epochs and steps count from 1."""
        values = values | {"images_per_second": round(num_images / max(progress.step_seconds, 1e-9), 3)}
        self._write(progress, {"epoch": progress.epoch + 1, **values})
        self._add_curves("train", values, progress.step)

    def write_validation(self, progress: Progress, name: str, scores: dict[str, Any]) -> None:
        """Write the row of a validation with all its scores; `name` is that of the data, `epoch` those that are complete."""
        self._write(progress, {"epoch": progress.epoch, "validation": name, **scores})
        self._add_curves(f"validation/{Path(name).name}", scores, progress.step)

    @property
    def has_curves(self) -> bool:
        """Whether there is a TensorBoard to write to."""
        return self._curves is not None

    def add_image(self, name: str, pixels: Any, step: int) -> None:
        """Show an image in TensorBoard: pixels (height, width, 3) uint8."""
        if self._curves is not None:
            self._curves.add_image(name, pixels, step, dataformats="HWC")
            self._curves.flush()

    def _write(self, progress: Progress, values: dict[str, Any]) -> None:
        if self._file is not None:
            line = _line({"step": progress.step, "elapsed": round(progress.seconds, 3), **values})
            with suppress(OSError):  # a full disk: a row is lost, not the run, whose next state says so
                self._file.write(line)
                self._file.flush()

    def _add_curves(self, group: str, values: dict[str, Any], step: int) -> None:
        if self._curves is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._curves.add_scalar(re.sub(r"[^-/\w.]", "_", f"{group}/{name}"), value, step)
            self._curves.flush()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log; a line that a crash left incomplete is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    """Return a row as JSON, which has no numbers that are not finite: they become null."""
    finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"


def _curves(folder: Path, step: int) -> Any:
    """Return a writer of TensorBoard's event files, None if the package is not installed. Events after `step` are hidden."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
