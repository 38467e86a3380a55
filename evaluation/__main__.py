"""Figures: `python -m evaluation captions | maps | heads | speed | golden | streams`; --json: one object as the last line."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation import commands
from evaluation.pages import COLUMNS, cell
from evaluation.peers import PEERS
from model import DEFAULT_CHECKPOINT, CaptionerError

_WIDTH = 9  # characters of a table's column


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        figures: dict[str, Any] = options.run(options)
    except (CaptionerError, OSError, ValueError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(figures, ensure_ascii=False))
    elif "systems" in figures:
        _print_systems(figures)
    else:
        _print_figures(figures, exact=options.run in (commands.golden, commands.streams, commands.speed))
    return 0 if figures.get("equal", True) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    captions = verbs.add_parser("captions", help="BLEU, ROUGE-L, CIDEr of checkpoints and of captions made elsewhere")
    captions.add_argument("--data", required=True, help="data with references, or `scenes`; docs/data.md has the formats")
    captions.add_argument("--checkpoint", type=Path, action="append", default=[], help="may be repeated; the embedded one")
    captions.add_argument("--results", type=Path, action="append", default=[], help="COCO results to score; may be repeated")
    captions.add_argument("--num-beams", type=_beams, action="append", help="1 is greedy; may be repeated; 3 if none")
    captions.add_argument("--length-penalty", type=float)
    captions.add_argument("--split", help="test, or for --results alone every image that they name")
    captions.add_argument("--language", default="en")
    captions.add_argument(
        "--baselines", choices=["none", "simple", "all"], default="simple",
        help="simple: a constant, wrong pictures; all: nearest pictures and humans, leaving a reference out, too",
    )  # fmt: skip
    captions.add_argument("--training", metavar="DATA", help="what was learnt from, for copies and baselines; --data if none")
    captions.add_argument("--meteor", action="store_true", help="METEOR too; needs Java and the extra `meteor`")
    captions.add_argument("--synonyms", type=Path, help="a list of CHAIR's authors instead of our own words")
    captions.add_argument("--out", type=Path, metavar="FOLDER", help="write a page, every image's scores, and the captions there")
    captions.set_defaults(run=commands.captions)

    maps = verbs.add_parser("maps", help="whether maps point at what their words name")
    maps.add_argument("--data", required=True, help="photographs with boxes and captions, or `scenes`")
    maps.add_argument("--split", help="of the photographs; all of them where it is missing")
    maps.set_defaults(run=commands.maps)

    heads = verbs.add_parser("heads", help="choose the attention heads whose mean points best")
    heads.add_argument("--write", action="store_true", help="write the choice into the checkpoint's config.json")
    heads.add_argument("--data", action="append", required=True, help="`scenes`, or photographs with boxes and captions")
    heads.add_argument("--mean", choices=["arithmetic", "geometric"], default="geometric")
    heads.add_argument("--split", default="train", help="of the photographs")
    heads.set_defaults(run=commands.heads)

    golden = verbs.add_parser("golden", help="our tokens and scores beside recorded ones of the reference code")
    golden.add_argument("folder", type=Path, help="recorded figures (evaluation/golden.py says which files)")
    golden.add_argument("--speed", action="store_true", help="time tokens and CIDEr beside pycocoevalcap and its Java instead")
    golden.add_argument("--candidates", type=int, metavar="N", help="time and memory of so many captions instead")
    golden.add_argument("--meteor", action="store_true", help="METEOR too; needs Java")
    golden.set_defaults(run=commands.golden)

    streams = verbs.add_parser("streams", help="samples of tar shards a second, beside tarfile's own stream")
    streams.add_argument("--samples", type=_samples, default=100_000, help="at least 10")
    streams.add_argument("--folder", type=Path, help="where the synthetic shards lie for a while; 1 GB a 100,000 samples")
    streams.set_defaults(run=commands.streams)

    speed = verbs.add_parser("speed", help="images a second of a checkpoint, or of public families beside transformers")
    speed.add_argument("--peer", choices=["transformers"], help="random weights of the published sizes, converted")
    speed.add_argument("--family", choices=PEERS, action="append", help="with --peer; may be repeated; vit_gpt2 and blip")
    speed.add_argument("--turns", type=int, default=5, help="each makes every call once; a single one shows no order")
    speed.set_defaults(run=commands.speed)

    for command in (captions, maps, heads, speed):
        if command is not captions:
            command.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
        if command is not heads:  # heads are read in float32
            command.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
        if command is not speed:
            command.add_argument("--scenes", type=int, default=500, help="number of scenes for --data scenes")
    for command in (captions, maps, heads, golden, streams, speed):
        command.add_argument("--json", action="store_true")
    return parser


def _beams(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1 (greedy)")
    return int(text)


def _samples(text: str) -> int:
    if not text.isdigit() or int(text) < 10:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 10")
    return int(text)


def _print_systems(figures: dict[str, Any]) -> None:
    """Print a table, a system a line, x 100 as papers have it; then the intervals and the table with a human."""
    rows = figures["systems"] | figures.get("baselines", {})
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in rows.values())]
    _print_rows(rows, columns)
    first = next(iter(rows.values()))
    print(f"\n{first['images']} images, {first['tokens']}; 95 % intervals by bootstrap over the images:")
    for name, row in figures["systems"].items():
        told = ", ".join(f"{measure} {100 * low:.1f} to {100 * high:.1f}" for measure, (low, high) in row["intervals"].items())
        print(f"  {name}: {told}")
    for name, row in figures.get("baselines", {}).items():
        if "caption" in row:
            print(f"  {name}: {row['caption']!r}")
    if left := figures.get("one reference left out"):
        print("\none reference left out, the mean over which:")
        _print_rows(left, ["CIDEr", "BLEU-4", "ROUGE-L"])


def _print_rows(rows: dict[str, dict[str, Any]], columns: Sequence[str]) -> None:
    wide = max(map(len, rows))
    print(" " * wide + "".join(f"{name:>{max(_WIDTH, len(name) + 2)}}" for name in columns))
    for name, row in rows.items():
        cells = [f"{cell(row.get(column), column):>{max(_WIDTH, len(column) + 2)}}" for column in columns]
        print(f"{name:<{wide}}" + "".join(cells))


def _print_figures(figures: dict[str, Any], indent: str = "", *, exact: bool = False) -> None:
    """Print figures; shares are printed x 100, as tables of papers have them, or `exact`ly as they are."""
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print_figures(value, indent + "  ", exact=exact)
        elif isinstance(value, float):
            print(f"{indent}{name:<12} " + (f"{value:.6g}" if exact else f"{100 * value:6.1f}"))
        elif isinstance(value, list) and value and all(isinstance(item, float) for item in value):
            print(f"{indent}{name:<12} " + " … ".join(f"{item:.6g}" if exact else f"{100 * item:.1f}" for item in value))
        else:
            print(f"{indent}{name:<12} {value}")


if __name__ == "__main__":
    sys.exit(main())
