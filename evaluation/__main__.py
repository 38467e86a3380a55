"""Figures: `python -m evaluation captions | maps | heads | golden`; --json prints one object as the last line."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus import DataError, draw_scene, read_data
from evaluation import (
    SELECTION_SERIES,
    best_constant,
    caption_pictures,
    choose_heads,
    golden_figures,
    held_out_scenes,
    judge_scenes,
    objects_of_photographs,
    objects_of_scenes,
    photograph_pointing,
    read_heads,
    scene_pointing,
    score_captions,
    speed_beside_peer,
    wrong_pictures,
)
from model import (
    DEFAULT_CHECKPOINT,
    Captioner,
    CaptionerError,
    GenerationOptions,
    Strategy,
    load_checkpoint,
    rewrite_config,
    use_threads,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is _captions and bool(options.results) == bool(options.data):
        parser.error("captions needs --data DATA (with a checkpoint), or --results FILE with --references DATA")
    try:
        figures: dict[str, Any] = options.run(options)
    except (CaptionerError, OSError, ValueError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    status = 0 if figures.get("equal", True) else 1
    if options.json:
        print(json.dumps(figures, ensure_ascii=False))
    else:
        _print_table(figures, exact=options.run is _golden)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    captions = commands.add_parser("captions", help="BLEU, ROUGE-L and CIDEr of a checkpoint, or of a results file")
    captions.add_argument("--results", type=Path, help='COCO results: [{"image_id": …, "caption": …}, …]')
    captions.add_argument("--references", help="data whose captions the results are scored against")
    captions.add_argument("--data", help="data to caption, or `scenes`")
    captions.add_argument("--split", default="test")
    captions.add_argument("--language", default="en")
    captions.add_argument("--beams", type=int, default=3, help="1 is greedy")
    captions.add_argument("--length-penalty", type=float)
    captions.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    captions.add_argument("--write", type=Path, metavar="RESULTS.json", help="also write the captions as COCO results")
    captions.set_defaults(run=_captions)
    maps = commands.add_parser("maps", help="whether maps point at what their words name")
    maps.add_argument("--data", required=True, help="photographs with boxes and captions, or `scenes`")
    maps.add_argument("--split", help="of the photographs; all of them where it is missing")
    maps.set_defaults(run=_maps)
    heads = commands.add_parser("heads", help="choose the attention heads whose mean points best")
    heads.add_argument("--write", action="store_true", help="write the choice into the checkpoint's config.json")
    heads.add_argument("--data", action="append", required=True, help="`scenes`, or photographs with boxes and captions")
    heads.add_argument("--mean", choices=["arithmetic", "geometric"], default="geometric")
    heads.add_argument("--split", default="train", help="of the photographs")
    heads.set_defaults(run=_heads)
    golden = commands.add_parser("golden", help="our tokens and scores beside recorded ones of the reference code")
    golden.add_argument("folder", type=Path, help="recorded figures (evaluation/golden.py says which files)")
    golden.add_argument("--json", action="store_true")
    golden.add_argument("--speed", action="store_true", help="time tokens and CIDEr beside pycocoevalcap and its Java instead")
    golden.set_defaults(run=_golden)
    for command in (captions, maps, heads):
        command.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
        if command is not heads:  # heads are read in float32
            command.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
        command.add_argument("--scenes", type=int, default=500, help="number of scenes for --data scenes")
        command.add_argument("--json", action="store_true")
    return parser


def _captions(options: argparse.Namespace) -> dict[str, Any]:
    if options.results:
        return _results(options.results, options.references, options.language)
    captioner = _captioner(options)
    changed = {} if options.length_penalty is None else {"length_penalty": options.length_penalty}
    strategy: Strategy = "greedy" if options.beams == 1 else "beam"
    generation = dataclasses.replace(captioner.config.generation, strategy=strategy, beams=options.beams, **changed)
    if options.data == "scenes":
        return _scenes(captioner, generation, options.scenes)
    everything = read_data(options.data, language=options.language)
    examples = [example for example in everything if example.split == options.split]
    if not examples:
        splits = ", ".join(sorted({example.split for example in everything}))
        raise DataError(f"{options.data!r} has no split {options.split!r}; it has {splits}")
    references = {example.image_id: list(example.references) for example in examples}
    texts = caption_pictures(captioner, [example.read() for example in examples], generation)
    captions = {example.image_id: text for example, text in zip(examples, texts, strict=True)}
    if options.write:
        rows = [{"image_id": image, "caption": text} for image, text in captions.items()]
        options.write.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    training = [text for example in everything if example.split == "train" for text in example.references]
    language = options.language
    figures: dict[str, Any] = score_captions(captions, references, language=language, training=training).as_json()
    if options.baselines:
        figures["baselines"] = _baselines(training, captions, references, language)
    return figures


def _baselines(training: list[str], captions: dict[str, str], references: dict[str, list[str]], language: str) -> dict[str, Any]:
    known = training or [text for texts in references.values() for text in texts]
    sentence, constant = best_constant(known, references, language=language)
    wrong = score_captions(wrong_pictures(captions), references, language=language)
    return {"best constant caption": {"caption": sentence, **constant.as_json()}, "wrong pictures": wrong.as_json()}


def _scenes(captioner: Captioner, generation: GenerationOptions, count: int) -> dict[str, Any]:
    return {
        "seen pairs": judge_scenes(captioner, held_out_scenes(count), generation),
        "unseen pairs": judge_scenes(captioner, held_out_scenes(count, unseen=True), generation),
    }


def _golden(options: argparse.Namespace) -> dict[str, Any]:
    if options.speed:
        return speed_beside_peer(options.folder)
    figures = golden_figures(options.folder)
    if not figures["equal"]:
        print("evaluation: tokens or scores differ from the recorded ones", file=sys.stderr)
    return figures


def _results(results: Path, references: str | None, language: str) -> dict[str, Any]:
    if not references:
        raise DataError("--results needs --references DATA: the captions to score against")
    try:
        rows = json.loads(results.read_text(encoding="utf-8"))
        if not rows:
            raise DataError(f"{results} holds no captions; there is nothing to score")
        captions = {str(row["image_id"]): str(row["caption"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{results} is no results file ({error!r}); it is [{{"image_id", "caption"}}, …]') from error
    examples = read_data(references, language=language, need_images=False)
    known = {example.image_id: list(example.references) for example in examples if example.references}
    return score_captions(captions, known, language=language).as_json()


def _maps(options: argparse.Namespace) -> dict[str, Any]:
    captioner = _captioner(options)
    if options.data == "scenes":
        return scene_pointing(captioner, held_out_scenes(options.scenes)).as_json()
    examples = [example for example in read_data(options.data) if options.split in (None, example.split)]
    if not any(example.objects for example in examples):
        raise DataError(f"{options.data!r} has no boxes; maps are judged by photographs with boxes, or by `scenes`")
    return photograph_pointing(captioner, examples).as_json()


def _heads(options: argparse.Namespace) -> dict[str, Any]:
    use_threads()
    checkpoint = load_checkpoint(options.checkpoint)
    reads = {}
    for data in options.data:
        if data == "scenes":
            scenes = [draw_scene(SELECTION_SERIES, number) for number in range(options.scenes)]
            named = objects_of_scenes(scenes)
        else:
            named = objects_of_photographs([example for example in read_data(data) if example.split == options.split])
        if not named:
            raise DataError(f"{data!r} has no boxed object that a caption of its split {options.split!r} names")
        reads[data] = read_heads(checkpoint, named)
    config = dataclasses.replace(checkpoint.config.maps, mean=options.mean, pointing=None)
    chosen, scores = choose_heads(list(reads.values()), config)
    if options.write:
        maps = dataclasses.replace(config, heads=tuple(chosen))
        rewrite_config(options.checkpoint, dataclasses.replace(checkpoint.config, maps=maps))
    figures: dict[str, Any] = {"heads": chosen, "mean": options.mean}
    for (data, read), score in zip(reads.items(), scores, strict=True):
        every = range(len(read.rows))
        alone = {f"layer {head // read.heads} head {head % read.heads}": read.pointing([head], config) for head in every}
        figures[data] = {
            "words": read.rows.size(1),
            "chosen": score,
            "all heads": read.pointing(every, config),
            "alone": alone,
        }
    return figures


def _captioner(options: argparse.Namespace) -> Captioner:
    use_threads()
    captioner = Captioner.load(options.checkpoint, options.dtype)
    print(f"numeric type: {captioner.precision.reason}", file=sys.stderr)
    return captioner


def _print_table(figures: dict[str, Any], indent: str = "", *, exact: bool = False) -> None:
    """Print figures; shares are printed x 100, as tables of papers have them, or `exact`ly as they are."""
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print_table(value, indent + "  ", exact=exact)
        elif isinstance(value, float) and (exact or name == "words"):
            print(f"{indent}{name:<12} {value:.6g}")
        elif isinstance(value, list) and all(isinstance(end, float) for end in value):
            print(f"{indent}{name:<12} {' … '.join(f'{100 * end:.1f}' for end in value)}")
        elif isinstance(value, float):
            print(f"{indent}{name:<12} {100 * value:6.1f}")
        else:
            print(f"{indent}{name:<12} {value}")


if __name__ == "__main__":
    sys.exit(main())
