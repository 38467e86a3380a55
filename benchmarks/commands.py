"""Commands of `python -m benchmarks`: their flags, and functions from parsed options to results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.ablation import ROWS, run_ablation
from benchmarks.golden import golden_figures
from benchmarks.peers import PEER_FAMILIES
from benchmarks.scorer_cost import compare_scorer_speed, measure_scorer_cost
from benchmarks.streaming import measure_streaming
from benchmarks.throughput import compare_with_peer, measure_checkpoint
from evaluation import (
    add_checkpoint_flag,
    add_device_flag,
    add_dtype_flag,
    add_json_flag,
    int_at_least,
    load_captioner,
)

_DEFAULT_FAMILIES = ("vit_gpt2", "blip")


def add_speed_command(subparsers: Any) -> None:
    """Add `speed` to the subparsers of a command line."""
    speed = subparsers.add_parser("speed", help="images per second of a checkpoint, or of public families next to transformers")
    speed.add_argument("--peer", choices=["transformers"], help="compare with random weights of the published sizes instead")
    speed.add_argument(
        "--family",
        choices=PEER_FAMILIES,
        action="append",
        help=f"family for --peer, may be repeated (default: {' and '.join(_DEFAULT_FAMILIES)})",
    )
    speed.add_argument(
        "--turns",
        type=int_at_least(1),
        default=5,
        metavar="N",
        help="timed turns, each makes every call once (default: 5 turns)",
    )
    add_checkpoint_flag(speed)
    add_device_flag(speed)
    add_dtype_flag(speed)
    add_json_flag(speed)
    speed.set_defaults(run=_speed, exact=True)


def add_golden_command(subparsers: Any) -> None:
    """Add `golden` to the subparsers of a command line."""
    golden = subparsers.add_parser("golden", help="tokens and scores compared with recorded ones of the reference code")
    golden.add_argument("folder", type=Path, help="folder of recorded results (benchmarks/golden.py lists its files)")
    golden.add_argument(
        "--speed", action="store_true", help="instead, time tokens and CIDEr next to pycocoevalcap and its Java tokenizer"
    )
    golden.add_argument(
        "--candidates", type=int_at_least(1), metavar="N", help="instead, measure time and memory of scoring N captions"
    )
    golden.add_argument("--meteor", action="store_true", help="also compare METEOR; needs Java")
    add_json_flag(golden)
    golden.set_defaults(run=_golden)


def add_streams_command(subparsers: Any) -> None:
    """Add `streams` to the subparsers of a command line."""
    streams = subparsers.add_parser("streams", help="samples per second of tar shards, next to tarfile's own stream")
    streams.add_argument(
        "--samples",
        type=int_at_least(10),
        default=100_000,
        metavar="N",
        help="synthetic samples, at least 10 (default: 100000 samples)",
    )
    streams.add_argument(
        "--folder",
        type=Path,
        help="folder for temporary shards, 1 GB per 100000 samples (default: the system's temporary folder)",
    )
    add_json_flag(streams)
    streams.set_defaults(run=_streams)


def add_ablation_command(subparsers: Any) -> None:
    """Add `ablation` to the subparsers of a command line."""
    ablation = subparsers.add_parser("ablation", help="train with and without each part of a recipe, and compare the captions")
    ablation.add_argument("--data", required=True, help="captioned images with a train and a val split")
    ablation.add_argument("--folder", type=Path, required=True, help="folder for the runs; complete ones are not repeated")
    ablation.add_argument("--steps", type=int_at_least(1), default=300, metavar="N", help="steps of each run (default: 300)")
    ablation.add_argument("--seeds", type=int_at_least(1), default=2, metavar="N", help="seeds of each row (default: 2)")
    ablation.add_argument("--threads", type=int_at_least(0), default=0, metavar="N", help="CPU threads (default: 0, as train.py)")
    ablation.add_argument("--row", action="append", choices=ROWS, help="only this row, may be repeated (default: all)")
    add_json_flag(ablation)
    ablation.set_defaults(run=_ablation)


def _speed(options: argparse.Namespace) -> dict[str, Any]:
    if options.peer:
        families = options.family or _DEFAULT_FAMILIES
        figures: dict[str, Any] = {
            family: compare_with_peer(family, device=options.device, dtype=options.dtype, turns=options.turns)
            for family in families
        }
        return figures | {"equal": all(family["equal_captions"] for family in figures.values())}
    return measure_checkpoint(load_captioner(options.checkpoint, options.device, options.dtype), options.turns)


def _golden(options: argparse.Namespace) -> dict[str, Any]:
    if options.candidates:
        return measure_scorer_cost(options.folder, options.candidates)
    if options.speed:
        return compare_scorer_speed(options.folder)
    return golden_figures(options.folder, with_meteor=options.meteor)


def _streams(options: argparse.Namespace) -> dict[str, Any]:
    return measure_streaming(options.samples, options.folder)


def _ablation(options: argparse.Namespace) -> dict[str, Any]:
    seeds = range(options.seeds)
    return run_ablation(options.data, options.folder, options.steps, seeds, options.row or (), options.threads)
