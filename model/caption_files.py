"""`python -m model caption`: images of files and folders to JSON lines, a CSV table, texts beside the images, contact sheets."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from model.captioner import Captioner
from model.captions import CaptionResult
from model.checkpoint import load_checkpoint
from model.device import choose_policy
from model.errors import ConfigError, ImageError
from model.fields import flag_values
from model.geometry import ImageView
from model.hub import checkpoint_folder
from model.image import ALL_FORMATS, ImageLimits, decode_image, prepare
from model.options import GenerationOptions

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_LIMITS = ImageLimits(formats=ALL_FORMATS)  # local files: every format that can be read
_CSV_FIELDS = ["file", "text", "confidence", "words", "error"]


def caption_files(options: argparse.Namespace) -> int:
    """Caption the images that the command line names; returns the exit status: 0 all, 1 some failed, 2 wrong use."""
    if options.output is not None and options.output.suffix not in (".jsonl", ".csv"):
        return _wrong_use(f"--output is {str(options.output)!r}; it must end in .jsonl or .csv")
    images = list(_images(options.images))
    if (clash := _clash(options, images)) is not None:
        return _wrong_use(clash)
    policy = choose_policy(options.device, options.dtype)
    policy.apply()
    checkpoint = load_checkpoint(checkpoint_folder(options.checkpoint))
    captioner = Captioner.from_checkpoint(checkpoint, policy, copy_weights=False)
    print(f"device {policy.device}, {policy.reason}", file=sys.stderr)
    changes = flag_values(GenerationOptions, options)
    if "num_beams" in changes and "strategy" not in changes:
        changes["strategy"] = "beam" if changes["num_beams"] > 1 else "greedy"
    try:
        generation = dataclasses.replace(captioner.config.generation, **changes)
    except ConfigError as error:
        return _wrong_use(str(error))
    if options.overlays is not None:
        options.overlays.mkdir(parents=True, exist_ok=True)
    failed = 0
    with _Writer(options) as writer:
        for number, (file, name) in enumerate(images, start=1):
            _show_progress(number, len(images))
            try:
                data = file.read_bytes()
                view = prepare(data, captioner.image_config, _LIMITS)
                (result,) = captioner.caption([view], generation, maps=options.maps)
            except (ImageError, OSError) as error:
                failed += 1
                writer.write(file, {"file": str(file), "error": str(error)})
                continue
            writer.write(file, _record(file, result))
            if options.overlays is not None:
                _draw(_sheet(options.overlays, name), data, view, result)
    return 1 if failed else 0


def _wrong_use(message: str) -> int:
    print(f"model: {message}", file=sys.stderr)
    return 2


def _images(named: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each file named and each image below the folders named: the path, and its name below what was named."""
    for path in named:
        if path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES):
                yield file, file.relative_to(path)
        else:
            yield path, Path(path.name)


def _sheet(folder: Path, name: Path) -> Path:
    return folder / f"{name}.png"


def _clash(options: argparse.Namespace, images: Sequence[tuple[Path, Path]]) -> str | None:
    """Return an error message if two images would write the same file."""
    targets: list[tuple[Callable[[Path, Path], Path], str]] = []
    if options.sidecar:
        targets.append((lambda file, _: file.with_suffix(".txt"), "rename one, or use --output"))
    if options.overlays:
        targets.append((lambda _, name: _sheet(options.overlays, name), "use a folder of its own for each"))
    for target_of, remedy in targets:
        owners: dict[Path, Path] = {}
        for file, name in images:
            target = target_of(file, name)
            if target in owners and owners[target] != file:
                return f"{owners[target]} and {file} would both write {target}; {remedy}"
            owners[target] = file
    return None


def _record(file: Path, result: CaptionResult) -> dict[str, Any]:
    caption = result.captions[0]
    words = [
        {
            "text": word.text,
            "start": word.start,
            "end": word.end,
            "probability": round(word.probability, 6),
            "image_reliance": None if word.image_reliance is None else round(word.image_reliance, 6),
            "box": None if word.box is None else list(word.box),
        }
        for word in caption.words
    ]
    return {"file": str(file), "text": caption.text, "confidence": None, "words": words}


def _draw(sheet: Path, data: bytes, view: ImageView, result: CaptionResult) -> None:
    from report import contact_sheet  # the one import of report in this package (docs/architecture.md)

    image = decode_image(data, _LIMITS).upright()
    sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(image, result.captions[0], result.grid, view).save(sheet)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        filled = 30 * done // total
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total}", end="", file=sys.stderr)
        if done == total:
            print(file=sys.stderr)


class _Writer:
    """Writes each record to standard output, a JSON-lines or CSV file, or a text beside the image."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._sidecar: bool = options.sidecar
        self._file = sys.stdout if options.output is None else options.output.open("w", encoding="utf-8", newline="")
        self._table: csv.DictWriter[str] | None = None
        if options.output is not None and options.output.suffix == ".csv":
            self._table = csv.DictWriter(self._file, _CSV_FIELDS, restval="")
            self._table.writeheader()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not sys.stdout:
            self._file.close()

    def write(self, file: Path, record: dict[str, Any]) -> None:
        if self._table is not None:
            words = json.dumps(record["words"], ensure_ascii=False) if "words" in record else ""
            self._table.writerow(record | {"words": words})
        elif self._sidecar and "text" in record:
            file.with_suffix(".txt").write_text(record["text"] + "\n", encoding="utf-8")
        else:
            print(json.dumps(record, ensure_ascii=False), file=self._file, flush=True)
