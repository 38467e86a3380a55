"""Command lines of the model: `python -m model caption FILE|FOLDER…`, `convert`, `push`, `pull` and `show`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model import (
    ALL_FORMATS,
    DEFAULT_CHECKPOINT,
    Captioner,
    CaptionerError,
    CheckpointError,
    ConfigError,
    ImageCaptions,
    ImageError,
    ImageLimits,
    prepare,
    read_config,
    read_picture,
    to_json,
    use_threads,
)
from model.hub import convert_found, fetch, is_hub_id, pull, push
from model.pretrained import convert_source

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_LIMITS = ImageLimits(formats=ALL_FORMATS)  # files of one's own: every format that can be read
_CSV_FIELDS = ["file", "text", "confidence", "words", "error"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaptionerError, OSError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True)

    caption = commands.add_parser("caption", help="caption pictures: one JSON line each")
    caption.add_argument("pictures", nargs="+", type=Path, metavar="FILE|FOLDER")
    caption.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    caption.add_argument("--beams", type=int)
    caption.add_argument("--max-tokens", type=int)
    caption.add_argument("--prompt", help="the first words of every caption")
    caption.add_argument("--length-penalty", type=float)
    caption.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    where = caption.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE.jsonl|FILE.csv", help="instead of standard output")
    where.add_argument("--sidecar", action="store_true", help="write PICTURE.txt beside every picture")
    caption.add_argument("--overlays", type=Path, metavar="FOLDER", help="write a contact sheet a picture")
    caption.set_defaults(run=_caption)

    convert = commands.add_parser("convert", help="somebody else's checkpoint as ours: ViT-GPT2, BLIP captioning, TrOCR")
    convert.add_argument("source", help="a folder of transformers, a .pth of BLIP's authors, or a hub id: NAME/NAME[@REVISION]")
    convert.add_argument("folder", type=Path)
    convert.add_argument("--licence", default="", help="under which the source is published; its card says")
    convert.add_argument("--language", default="en", help="that it speaks, BCP 47")
    convert.add_argument("--unusual-heads", action="store_true", help="take a number of heads that no published network has")
    convert.set_defaults(run=_convert)

    fetch = commands.add_parser("pull", help="a checkpoint of ours from a hub, to a folder")
    fetch.add_argument("repository", metavar="NAME/NAME[@REVISION]")
    fetch.add_argument("folder", type=Path)
    fetch.set_defaults(run=_pull)

    send = commands.add_parser("push", help="a checkpoint and its card to a hub; `hf auth login` first")
    send.add_argument("folder", type=Path)
    send.add_argument("repository", metavar="NAME/NAME[@BRANCH]")
    send.add_argument("--private", action="store_true")
    send.set_defaults(run=_push)

    show = commands.add_parser("show", help="say what a checkpoint is")
    show.add_argument("checkpoint", type=Path, nargs="?", default=DEFAULT_CHECKPOINT)
    show.set_defaults(run=_show)
    return parser


def _caption(options: argparse.Namespace) -> int:
    if options.output is not None and options.output.suffix not in (".jsonl", ".csv"):
        print(f"model: --output is {str(options.output)!r}; it must end in .jsonl or .csv", file=sys.stderr)
        return 2
    pictures = list(_pictures(options.pictures))
    if (clash := _clash(options, pictures)) is not None:
        print(f"model: {clash}", file=sys.stderr)
        return 2
    use_threads()
    captioner = Captioner.load(options.checkpoint, options.dtype)
    print(f"numeric type: {captioner.precision.reason}", file=sys.stderr)
    changed: dict[str, Any] = {
        name: value
        for name, value in (
            ("beams", options.beams),
            ("max_tokens", options.max_tokens),
            ("length_penalty", options.length_penalty),
            ("prompt", options.prompt),
            ("strategy", None if options.beams is None else "beam" if options.beams > 1 else "greedy"),
        )
        if value is not None
    }
    try:
        generation = dataclasses.replace(captioner.config.generation, **changed)
    except ConfigError as error:
        print(f"model: {error}", file=sys.stderr)
        return 2
    if options.overlays is not None:
        options.overlays.mkdir(parents=True, exist_ok=True)
    failed = 0
    with _Writer(options) as writer:
        for number, (file, name) in enumerate(pictures, start=1):
            _progress(number, len(pictures))
            try:
                data = file.read_bytes()
                (answer,) = captioner.caption([prepare(data, captioner.image_config, _LIMITS)], generation)
            except (ImageError, OSError) as error:
                failed += 1
                writer.write(file, {"file": str(file), "error": str(error)})
                continue
            writer.write(file, _record(file, answer))
            if options.overlays is not None:
                _draw(_sheet(options.overlays, name), data, answer)
    return 1 if failed else 0


def _convert(options: argparse.Namespace) -> int:
    _refuse_existing(options.folder)
    told = {"licence": options.licence, "language": options.language, "unusual_heads": options.unusual_heads}
    if not Path(options.source).exists() and is_hub_id(options.source):
        left_out = convert_found(fetch(options.source), options.folder, **told)
    else:
        left_out = convert_source(Path(options.source), options.folder, **told)
    config = read_config(options.folder)
    print(f"{options.folder}: pictures of {config.image.height} x {config.image.width}, {config.decoder.vocabulary} tokens")
    for setting in left_out:
        print(f"not taken over from the source's decoding: {setting}", file=sys.stderr)
    if not config.licence:
        print("the source says no licence: --licence tells it, and `push` needs one", file=sys.stderr)
    return 0


def _pull(options: argparse.Namespace) -> int:
    _refuse_existing(options.folder)
    found = pull(options.repository, options.folder)
    print(f"{options.folder}: {found.repository} at {found.commit}")
    return 0


def _push(options: argparse.Namespace) -> int:
    print(push(options.folder, options.repository, private=options.private))
    return 0


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise CheckpointError(f"{folder} exists; name a new folder")


def _show(options: argparse.Namespace) -> int:
    captioner = Captioner.load(options.checkpoint, "float32")
    print(json.dumps({"parameters": captioner.parameters, **to_json(captioner.config)}, indent=2))
    print(captioner.card)
    return 0


def _pictures(named: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each file named and each picture below the folders named: the path, and its name below what was named."""
    for path in named:
        if path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in _ENDINGS):
                yield file, file.relative_to(path)
        else:
            yield path, Path(path.name)


def _sheet(folder: Path, name: Path) -> Path:
    return folder / f"{name}.png"


def _clash(options: argparse.Namespace, pictures: Sequence[tuple[Path, Path]]) -> str | None:
    """Return what to tell where two pictures would write the same file; None where each has its own."""
    for wanted, target_of, remedy in (
        (options.sidecar, lambda file, _: file.with_suffix(".txt"), "rename one, or use --output"),
        (
            options.overlays,
            lambda _, name: _sheet(options.overlays, name),
            "give each its own folder",
        ),
    ):
        owners: dict[Path, Path] = {}
        for file, name in pictures if wanted else ():
            target = target_of(file, name)
            if target in owners and owners[target] != file:
                return f"{owners[target]} and {file} would both write {target}; {remedy}"
            owners[target] = file
    return None


def _record(file: Path, answer: ImageCaptions) -> dict[str, Any]:
    caption = answer.captions[0]
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


def _draw(sheet: Path, data: bytes, answer: ImageCaptions) -> None:
    from report import contact_sheet  # the one place where model looks into another room (docs/architecture.md)

    photograph = read_picture(data, _LIMITS).upright()
    sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(photograph, answer.captions[0], answer.grid).save(sheet)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        filled = 30 * done // total
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total}", end="", file=sys.stderr)
        if done == total:
            print(file=sys.stderr)


class _Writer:
    """Sends each record where the options say: standard output, a JSON-lines or CSV file, or sidecar texts."""

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


if __name__ == "__main__":
    sys.exit(main())
