"""The outputs that a command line requests, and the text that they get."""

from __future__ import annotations

import argparse
import dataclasses
import string
import sys
from collections.abc import Callable
from pathlib import Path

from model.captions import Caption
from model.errors import ConfigError
from model.files.listing import ImageFile
from model.files.outputs import FilesBeside, Output, StandardOutput, Table, csv_columns, text_content, xmp_content


def add_output_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of what is written and where."""
    group.add_argument(
        "--output", type=Path, metavar="FILE.jsonl|FILE.csv", help="a record per image; an existing one is continued"
    )
    group.add_argument("--words", action="store_true", help="add the words, with boxes and figures, to the CSV file")
    group.add_argument("--sidecar", action="store_true", help="a text beside every image, IMAGE.txt; existing ones stay")
    group.add_argument("--extension", choices=["txt", "caption"], help="of the texts beside images (default: txt)")
    group.add_argument("--xmp", action="store_true", help="IMAGE.jpg.xmp beside every image, with the caption as its description")
    group.add_argument("--overwrite", action="store_true", help="replace what --output, --sidecar and --xmp find")
    group.add_argument("--overlays", type=Path, metavar="FOLDER", help="a contact sheet per image (default: none)")
    group.add_argument("--prefix", default="", help="text before every caption, such as a trigger word")
    group.add_argument("--suffix", default="", help="text behind every caption")
    group.add_argument("--json", action="store_true", help="JSON lines on a terminal too")


def open_outputs(options: argparse.Namespace, num_captions: int, before_print: Callable[[], None]) -> list[Output]:
    """Open what the options request: standard output if they name no file. Raises ConfigError for a contradiction."""
    _check(options)
    outputs: list[Output] = []
    if options.output is not None:
        columns = csv_columns(num_captions, has_words=options.words) if _is_csv(options) else None
        outputs.append(Table(options.output, columns=columns, overwrite=options.overwrite))
    if options.sidecar:
        suffix = f".{options.extension or 'txt'}"
        outputs.append(FilesBeside(lambda file: file.path.with_suffix(suffix), text_content, overwrite=options.overwrite))
    if options.xmp:
        outputs.append(FilesBeside(_xmp_path, xmp_content, overwrite=options.overwrite))
    if options.overlays is not None:
        folder: Path = options.overlays
        outputs.append(
            FilesBeside(
                lambda file: folder / f"{file.name}.png",
                lambda captioned, _: captioned.draw(),
                overwrite=options.overwrite,
                is_derived=True,
            )
        )
    if not (options.output or options.sidecar or options.xmp):
        outputs.insert(0, StandardOutput(as_json=options.json or not sys.stdout.isatty(), before=before_print))
    return outputs


def needs_words(options: argparse.Namespace) -> bool:
    """Whether an output has maps, boxes or reliance; texts alone are faster without."""
    has_json = _is_json_lines(options) or not (options.output or options.sidecar or options.xmp)
    return bool(has_json or options.words or options.overlays)


def decorated(caption: Caption, prefix: str, suffix: str) -> Caption:
    """Return a caption between prefix and suffix, such as trigger words; its words keep pointing at their text.

    A space is inserted where two words would touch.
    """
    if prefix and not prefix[-1].isspace():
        prefix += " "
    if suffix and not (suffix[0].isspace() or suffix[0] in string.punctuation):
        suffix = f" {suffix}"
    words = tuple(dataclasses.replace(word, start=word.start + len(prefix), end=word.end + len(prefix)) for word in caption.words)
    return dataclasses.replace(caption, text=prefix + caption.text + suffix, words=words)


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that contradict each other, or that would be ignored."""
    if options.output is not None and options.output.suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"--output is {str(options.output)!r}; it must end in .jsonl or .csv")
    if options.extension and not options.sidecar:
        raise ConfigError("--extension is that of the files of --sidecar; add --sidecar, or leave it out")
    if options.words and not _is_csv(options):
        raise ConfigError("--words adds a column to the CSV file of --output; JSON lines have the words anyway")
    if options.json and (options.output or options.sidecar or options.xmp):
        raise ConfigError("--json is for standard output; leave it out, or use --output FILE.jsonl")
    if options.overwrite and not (options.output or options.sidecar or options.xmp):
        raise ConfigError("--overwrite is for --output, --sidecar and --xmp; add one of them, or leave it out")
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size is {options.batch_size}; it must be at least 1")


def _is_csv(options: argparse.Namespace) -> bool:
    return options.output is not None and options.output.suffix == ".csv"


def _is_json_lines(options: argparse.Namespace) -> bool:
    return options.output is not None and options.output.suffix == ".jsonl"


def _xmp_path(file: ImageFile) -> Path:
    return file.path.with_name(f"{file.path.name}.xmp")
