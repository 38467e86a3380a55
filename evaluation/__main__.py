"""Metrics of captions and maps: `python -m evaluation captions | maps | heads | boxes | calibrate | speed`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation import commands
from evaluation.flags import add_checkpoint_flag, add_device_flag, add_dtype_flag, add_json_flag, int_at_least
from evaluation.tables import figures_text, methods_table, systems_table
from model import MAP_METHODS, CaptionerError, GenerationOptions, add_flags, fields_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    options = make_parser().parse_args(arguments)
    try:
        figures: dict[str, Any] = options.run(options)
    except (CaptionerError, OSError, ValueError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(figures, ensure_ascii=False))
    elif "methods" in figures:
        print(methods_table(figures["methods"]))
    elif "systems" in figures:
        print(systems_table(figures))
    else:
        print(figures_text(figures, exact=options.exact))
    return 0 if figures.get("equal", True) else 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from benchmarks import add_speed_command  # here, not at the top: benchmarks imports evaluation

    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    subparsers = parser.add_subparsers(required=True)
    _add_captions_command(subparsers)
    _add_maps_command(subparsers)
    _add_heads_command(subparsers)
    _add_boxes_command(subparsers)
    _add_calibrate_command(subparsers)
    add_speed_command(subparsers)
    return parser


def _add_captions_command(subparsers: Any) -> None:
    captions = subparsers.add_parser("captions", help="BLEU, ROUGE-L and CIDEr of checkpoints and of other programs' captions")
    captions.add_argument("--data", required=True, help="data with references, or `scenes`; docs/data.md lists the formats")
    captions.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER|hub:ID",
        help="checkpoint, may be repeated (default: the embedded one, or none with --results)",
    )
    captions.add_argument(
        "--results", type=Path, action="append", default=[], metavar="FILE.json", help="COCO results to score, may be repeated"
    )
    captions.add_argument("--split", help="split of --data (default: test, or with only --results every image in the results)")
    captions.add_argument(
        "--validation-ids",
        type=Path,
        metavar="FILE",
        help="score the images with these ids, one per line: RUN/validation_ids.txt has those that train.py held out",
    )
    captions.add_argument("--language", default="en", help="language of the references, BCP 47 (default: en)")
    captions.add_argument(
        "--baselines",
        choices=["none", "simple", "all"],
        default="simple",
        help="simple: a constant caption and shuffled captions; all: also captions of the nearest images, and scores of humans "
        "against the other references (default: simple)",
    )
    captions.add_argument(
        "--training", metavar="DATA", help="data of the checkpoint's training, for copies and baselines (default: --data)"
    )
    captions.add_argument("--meteor", action="store_true", help="also compute METEOR; needs Java and the extra `meteor`")
    captions.add_argument(
        "--synonyms", type=Path, metavar="FILE", help="word list of CHAIR's authors (default: this project's list)"
    )
    captions.add_argument(
        "--output-dir", type=Path, metavar="FOLDER", help="write a page, the scores of every image, and the captions there"
    )
    decoding = captions.add_argument_group("decoding")
    decoding.add_argument(
        "--num-beams",
        type=int_at_least(1),
        action="append",
        metavar="NUM_BEAMS",
        help="beams of beam search, 1 is greedy; may be repeated, one system per value (default: 3)",
    )
    add_flags(decoding, GenerationOptions, names=["strategy"], default_note="beam, or greedy for --num-beams 1")
    names = [info.name for info in fields_of(GenerationOptions) if info.name not in ("num_beams", "strategy")]
    add_flags(decoding, GenerationOptions, names=names, default_note="the checkpoint's")
    add_device_flag(captions)
    add_dtype_flag(captions)
    _add_scenes_flag(captions)
    add_json_flag(captions)
    captions.set_defaults(run=commands.captions, exact=False)


def _add_maps_command(subparsers: Any) -> None:
    maps = subparsers.add_parser("maps", help="whether maps point at the objects that their words name")
    maps.add_argument("--data", required=True, help="images with boxes and captions, or `scenes`")
    maps.add_argument("--split", help="split of --data, not of `scenes` (default: all images)")
    maps.add_argument(
        "--maps",
        choices=list(MAP_METHODS),
        action="append",
        help="map method (default: the checkpoint's); may be repeated, then the result is a Markdown table",
    )
    maps.add_argument(
        "--controls", action="store_true", help="also compare with mirror images, random weights, and the maps of other images"
    )
    maps.add_argument(
        "--faithfulness",
        action="store_true",
        help="also take away what maps point at: deletion, insertion, erased objects",
    )
    _add_checkpoint_flags(maps)
    _add_scenes_flag(maps)
    maps.set_defaults(run=commands.maps, exact=False)


def _add_heads_command(subparsers: Any) -> None:
    heads = subparsers.add_parser("heads", help="select the attention heads whose mean points best (float32)")
    heads.add_argument(
        "--data", action="append", required=True, help="images with boxes and captions, or `scenes`; may be repeated"
    )
    heads.add_argument("--split", default="train", help="split of --data, not of `scenes` (default: train)")
    heads.add_argument(
        "--mean", choices=["arithmetic", "geometric"], default="geometric", help="mean of the heads (default: geometric)"
    )
    heads.add_argument("--write", action="store_true", help="write the selection into the checkpoint's config.json")
    add_checkpoint_flag(heads)
    add_device_flag(heads)
    _add_scenes_flag(heads)
    add_json_flag(heads)
    heads.set_defaults(run=commands.heads, exact=False)


def _add_boxes_command(subparsers: Any) -> None:
    boxes = subparsers.add_parser("boxes", help="choose the threshold of word boxes by their overlap with annotated ones")
    boxes.add_argument("--data", required=True, help="images with boxes and captions")
    boxes.add_argument("--split", help="split of --data (default: all images)")
    boxes.add_argument("--write", action="store_true", help="write the threshold into the checkpoint's config.json")
    _add_checkpoint_flags(boxes)
    boxes.set_defaults(run=commands.boxes, exact=False)


def _add_calibrate_command(subparsers: Any) -> None:
    calibrate = subparsers.add_parser("calibrate", help="fit the confidence on the val split, judge it on the test split")
    calibrate.add_argument("--data", required=True, help="data with five references per image in the splits val and test")
    calibrate.add_argument("--images", type=int_at_least(0), default=0, metavar="N", help="images of a split (default: 0, all)")
    calibrate.add_argument("--write", action="store_true", help="write the weights into the checkpoint's config.json")
    _add_checkpoint_flags(calibrate)
    calibrate.set_defaults(run=commands.calibrate, exact=False)


def _add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that judges one checkpoint."""
    add_checkpoint_flag(parser)
    add_device_flag(parser)
    add_dtype_flag(parser)
    add_json_flag(parser)


def _add_scenes_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scenes", type=int_at_least(1), default=500, metavar="N", help="number of images of `--data scenes` (default: 500)"
    )


if __name__ == "__main__":
    sys.exit(main())
