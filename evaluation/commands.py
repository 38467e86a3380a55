"""Commands of `python -m evaluation`: each takes the parsed options and returns its results."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus import DataError, ErrorLog, Example, draw_scene, matches_language, read_data
from evaluation.boxes import run_boxes
from evaluation.calibrate import run_calibrate
from evaluation.compare import Comparison, compare
from evaluation.faithfulness import image_faithfulness, scene_faithfulness
from evaluation.generation import caption_images, png_bytes
from evaluation.hallucination import count_scene_hallucinations, read_synonyms
from evaluation.heads import SELECTION_SERIES, compute_head_rows, objects_of_images, objects_of_scenes, select_heads
from evaluation.map_controls import image_controls, scene_controls
from evaluation.pages import captions_page
from evaluation.pointing import image_pointing, scene_pointing
from evaluation.scenes import held_out_scenes, judge_captions
from evaluation.systems import System, match_results, read_results, run_checkpoint, unique_names, write_results
from model import (
    DEFAULT_CHECKPOINT,
    Captioner,
    ConfigError,
    GenerationOptions,
    checkpoint_folder,
    flag_values,
    write_config,
)

_DEFAULT_NUM_BEAMS = 3


def captions(options: argparse.Namespace) -> dict[str, Any]:
    """Score checkpoints and files of captions on the same images; write the files of --output-dir."""
    num_beams_values = _num_beams_values(options)
    if options.data == "scenes":
        if options.results or options.output_dir or options.meteor:
            raise DataError("scenes are judged exactly, without references; leave out --results, --output-dir and --meteor")
        return _captions_of_scenes(options, num_beams_values)
    if options.meteor and not matches_language(options.language, "en"):
        raise DataError(f"METEOR is computed for English only; leave --meteor out for --language {options.language}")
    if options.output_dir:
        _make_output_dir(options.output_dir)  # first, so that a wrong path does not fail after an hour of captions
    folders = options.checkpoint or ([] if options.results else [DEFAULT_CHECKPOINT])
    # Of a run that left out what cannot be used, the rest of the data may have errors.
    errors = ErrorLog(keep=True) if options.validation_ids else None
    need_images = bool(folders) and not options.validation_ids
    data = read_data(options.data, language=options.language, need_images=need_images, errors=errors)
    if options.validation_ids:
        data = _with_validation_ids(data, options.validation_ids, options.data)
        options.split = options.split or "val"
    training = data if options.training is None else read_data(options.training, language=options.language)
    training = [example for example in training if example.split == "train"]
    results = [read_results(path) for path in options.results]
    examples, results = _select_examples(data, options.split or ("test" if folders else None), options.data, results)
    captioners = [load_captioner(folder, options.device, options.dtype) for folder in folders]
    if options.baselines == "all" and not (captioners and training):
        print("evaluation: no baseline of nearest images: it needs a checkpoint and a train split", file=sys.stderr)
    runs = [
        (folder, captioner, _generation_options(captioner, num_beams, options))
        for folder, captioner in zip(folders, captioners, strict=True)
        for num_beams in num_beams_values
    ]
    checkpoint_names = [_system_name(folder, generation, options) for folder, _, generation in runs]
    names = unique_names(checkpoint_names + [system.name for system in results])
    systems = [
        run_checkpoint(name, captioner, generation, examples, language=options.language)
        for name, (_, captioner, generation) in zip(names, runs, strict=False)
    ]
    results = [dataclasses.replace(system, name=name) for name, system in zip(names[len(runs) :], results, strict=True)]
    comparison = compare(
        [*systems, *results],
        examples,
        training,
        language=options.language,
        baselines=options.baselines != "none",
        neighbor_encoder=captioners[0] if options.baselines == "all" and captioners else None,
        humans=options.baselines == "all",
        with_meteor=options.meteor,
        synonyms=read_synonyms(options.synonyms) if options.synonyms else None,
    )
    if options.output_dir:
        _write_comparison(options.output_dir, comparison, examples, f"Captions of {options.data}")
    return comparison.as_json()


def maps(options: argparse.Namespace) -> dict[str, Any]:
    """Judge whether maps point at the objects that their words name; several methods on the same images."""
    captioner = load_captioner(options.checkpoint, options.device, options.dtype)
    examples: list[Example] = []
    if options.data != "scenes":
        examples = [example for example in read_data(options.data) if options.split in (None, example.split)]
        if not any(example.objects for example in examples):
            raise DataError(f"{options.data!r} has no boxes; use images with boxes, or `scenes`")
    methods = {}
    names = options.maps or [captioner.config.maps.method]
    for name in names:
        started = time.perf_counter()
        if options.data == "scenes":
            pointing = scene_pointing(captioner, held_out_scenes(options.scenes), maps=name)
        else:
            pointing = image_pointing(captioner, examples, maps=name)
        figures = pointing.as_json() | {"seconds": (time.perf_counter() - started) / pointing.objects}
        if options.controls and options.data == "scenes":
            figures |= scene_controls(captioner, options.scenes, maps=name)
        elif options.controls:
            figures |= image_controls(captioner, examples, maps=name)
        if options.faithfulness and options.data == "scenes":
            figures |= scene_faithfulness(captioner, held_out_scenes(options.scenes), maps=name)
        elif options.faithfulness:
            figures |= image_faithfulness(captioner, examples, maps=name)
        methods[name] = figures
    return {"methods": methods} if len(names) > 1 else methods[names[0]]


def heads(options: argparse.Namespace) -> dict[str, Any]:
    """Select the heads whose mean points best; --write puts them into the checkpoint's config.json."""
    folder = _folder_to_write(options)
    captioner = Captioner.load(folder, device=options.device, dtype="float32")
    captioner.policy.apply()
    rows_of = {}
    for data in options.data:
        if data == "scenes":
            named = objects_of_scenes([draw_scene(SELECTION_SERIES, number) for number in range(options.scenes)])
        else:
            named = objects_of_images([example for example in read_data(data) if example.split == options.split])
        if not named:
            raise DataError(f"{data!r} has no boxed object that a caption of split {options.split!r} names; use other data")
        rows_of[data] = compute_head_rows(captioner, named)
    config = dataclasses.replace(captioner.config.maps, head_mean=options.mean, pointing=None)
    selected, scores = select_heads(list(rows_of.values()), config)
    if options.write:
        selected_config = dataclasses.replace(config, heads=tuple(selected))
        write_config(folder, dataclasses.replace(captioner.config, maps=selected_config))
    figures: dict[str, Any] = {"heads": selected, "mean": options.mean}
    for (data, rows), score in zip(rows_of.items(), scores, strict=True):
        all_heads = range(rows.num_heads)
        single_heads = {
            f"layer {head // rows.heads_per_layer} head {head % rows.heads_per_layer}": rows.pointing([head], config)
            for head in all_heads
        }
        figures[data] = {
            "words": rows.num_words,
            "selected": score,
            "all_heads": rows.pointing(all_heads, config),
            "single_heads": single_heads,
        }
    return figures


def calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """Fit the confidence and judge it; --write puts it into the checkpoint's config.json."""
    folder = _folder_to_write(options)
    return run_calibrate(options, load_captioner(folder, options.device, options.dtype), folder)


def boxes(options: argparse.Namespace) -> dict[str, Any]:
    """Choose the threshold of boxes; --write puts it into the checkpoint's config.json."""
    folder = _folder_to_write(options)
    return run_boxes(options, load_captioner(folder, options.device, options.dtype), folder)


def _folder_to_write(options: argparse.Namespace) -> Path:
    """Return the checkpoint's folder. Raises DataError if it is on a hub and --write is used."""
    folder = checkpoint_folder(options.checkpoint)
    if options.write and folder != options.checkpoint:
        raise DataError(f"{options.checkpoint} is on a hub; run `python -m model pull` and write to its folder")
    return folder


def load_captioner(folder: Path, device: str, dtype: str) -> Captioner:
    """Load a checkpoint, set torch's threads and print the device to standard error. Raises CheckpointError, ConfigError."""
    captioner = Captioner.load(folder, device=device, dtype=dtype)
    captioner.policy.apply()
    print(f"device {captioner.policy.device}, {captioner.policy.reason}", file=sys.stderr)
    return captioner


def _with_validation_ids(data: Sequence[Example], path: Path, name: str) -> list[Example]:
    """Return the examples, those whose ids are in a file with the split val. Raises DataError."""
    try:
        ids = {line for line in path.read_text(encoding="utf-8").split("\n") if line}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--validation-ids {path} cannot be read; name a text file with one image id per line") from error
    if missing := sorted(ids - {example.image_id for example in data}):
        raise DataError(f"{name!r} lacks {len(missing)} images of {path}, among them {missing[0]!r}; name the data of the run")
    return [dataclasses.replace(example, split="val") if example.image_id in ids else example for example in data]


def _select_examples(
    data: Sequence[Example], split: str | None, name: str, results: Sequence[System]
) -> tuple[list[Example], list[System]]:
    """Return the examples that are scored, and the results with their image ids.

    The examples are those of the split, for which every result file must have a caption.
    """
    examples = [example for example in data if split in (None, example.split)]
    results = [match_results(system, examples) for system in results]
    if split is None:
        examples = [example for example in examples if any(example.image_id in system.captions for system in results)]
    if not examples and split is None:
        result_id = next(iter(results[0].captions))
        raise DataError(
            f"{name!r} has none of the images of the results: they have ids such as {result_id!r}, the data such as "
            f"{data[0].image_id!r}; write the data's ids into the results"
        )
    if not examples:
        splits = ", ".join(sorted({example.split for example in data}))
        raise DataError(
            f"{name!r} has no split {split!r}; it has {splits}: choose one with --split, or the images that a run held out with "
            "--validation-ids RUN/validation_ids.txt"
        )
    expected = {example.image_id for example in examples}
    for system in results:
        if missing := sorted(expected - set(system.captions)):
            raise DataError(f"{system.name} has no caption of {len(missing)} images, among them {missing[0]!r}; add them")
        for image in set(system.captions) - expected:
            if split is None:
                raise DataError(f"{system.name} has a caption of {image!r}, which is not in {name!r}; remove it")
            del system.captions[image]  # of another split
    return examples, results


def _captions_of_scenes(options: argparse.Namespace, num_beams_values: Sequence[int]) -> dict[str, Any]:
    sets = {"training_pairs": held_out_scenes(options.scenes), "unseen_pairs": held_out_scenes(options.scenes, unseen=True)}
    figures: dict[str, Any] = {}
    for folder in options.checkpoint or [DEFAULT_CHECKPOINT]:
        captioner = load_captioner(folder, options.device, options.dtype)
        for num_beams in num_beams_values:
            generation = _generation_options(captioner, num_beams, options)
            name = unique_names([*figures, _system_name(folder, generation, options)])[-1]
            figures[name] = {}
            for kind, scenes in sets.items():
                texts = caption_images(captioner, [png_bytes(scene.render()) for scene in scenes], generation)
                figures[name][kind] = judge_captions(texts, scenes) | count_scene_hallucinations(texts, scenes).as_json()
    return figures


def _num_beams_values(options: argparse.Namespace) -> list[int]:
    """Return the values of --num-beams. Raises ConfigError if the strategy does not use beams."""
    strategy = flag_values(GenerationOptions, options).get("strategy", "beam")
    if options.num_beams and strategy != "beam":
        raise ConfigError(f"--num-beams does not apply to --strategy {strategy}; leave one of the two out")
    return options.num_beams or [_DEFAULT_NUM_BEAMS]


def _generation_options(captioner: Captioner, num_beams: int, options: argparse.Namespace) -> GenerationOptions:
    """Return the checkpoint's decoding options with those of the command line. Raises ConfigError."""
    values = flag_values(GenerationOptions, options) | {"num_beams": num_beams}
    values.setdefault("strategy", "greedy" if num_beams == 1 else "beam")
    return dataclasses.replace(captioner.config.generation, **values)


def _system_name(folder: Path, generation: GenerationOptions, options: argparse.Namespace) -> str:
    """Return the decoding strategy, after the folder if there are several checkpoints."""
    name = f"beam {generation.num_beams}" if generation.strategy == "beam" else generation.strategy
    return name if len(options.checkpoint) < 2 else f"{folder} {name}"


def _make_output_dir(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"--output-dir {folder} exists and is not empty; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output-dir {folder} cannot be written ({error.strerror}); name another folder") from error


def _write_comparison(folder: Path, comparison: Comparison, examples: Sequence[Example], title: str) -> None:
    """Write the page first, because it takes time and may fail; then scores and captions."""
    page = captions_page(title, comparison, examples)
    (folder / "captions").mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    scores = comparison.as_json() | {"images": comparison.per_image()}
    (folder / "scores.json").write_text(json.dumps(scores, ensure_ascii=False, indent=1), encoding="utf-8")
    for row in comparison.rows:
        name = re.sub(r"[^\w.()-]+", "-", row.system.name)
        write_results(row.system, folder / "captions" / f"{name}.json")
