"""What the subcommands of `python -m evaluation` do with their options; each returns its figures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus import DataError, Example, draw_scene, matches_language, read_data
from evaluation.compare import Comparison, compare
from evaluation.generate import caption_images, png_bytes
from evaluation.golden import golden_figures
from evaluation.hallucination import invented_in_scenes, read_synonyms
from evaluation.heads import SELECTION_SERIES, choose_heads, objects_of_images, objects_of_scenes, read_heads
from evaluation.maps import image_pointing, scene_pointing
from evaluation.pages import captions_page
from evaluation.scenes import held_out_scenes, judge_captions
from evaluation.speed import cost_beside_peer, cost_of_many
from evaluation.streaming import streaming_figures
from evaluation.systems import System, distinct, read_results, run_checkpoint, write_results
from evaluation.throughput import checkpoint_speed, speed_beside_peer
from model import (
    DEFAULT_CHECKPOINT,
    Captioner,
    GenerationOptions,
    Strategy,
    checkpoint_folder,
    choose_policy,
    load_checkpoint,
    write_config,
)


def captions(options: argparse.Namespace) -> dict[str, Any]:
    """Score checkpoints and files of captions on the same pictures; write what --out asks for."""
    if options.data == "scenes":
        if options.results or options.out or options.meteor:
            raise DataError("scenes are drawn and judged exactly; --results, --out and --meteor need data with references")
        return _captions_of_scenes(options)
    if options.meteor and not matches_language(options.language, "en"):
        raise DataError(f"METEOR here is that of English; leave --meteor out for --language {options.language}")
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise DataError(f"--out {options.out} exists and is not empty; name a new folder")
    if options.out:
        try:
            options.out.mkdir(parents=True, exist_ok=True)  # now: not after an hour of captions
        except OSError as error:
            raise DataError(f"--out {options.out} cannot be written ({error.strerror}); name another place") from error
    folders = options.checkpoint or ([] if options.results else [DEFAULT_CHECKPOINT])
    everything = read_data(options.data, language=options.language, need_images=bool(folders))
    learnt = everything if options.training is None else read_data(options.training, language=options.language)
    results = [read_results(path) for path in options.results]
    examples = _chosen(everything, options.split or ("test" if folders else None), options.data, results)
    captioners = [(folder, _loaded(folder, options.dtype)) for folder in folders]
    asked = [(folder, captioner, num_beams) for folder, captioner in captioners for num_beams in options.num_beams or [3]]
    names = distinct([_name(folder, num_beams, options) for folder, _, num_beams in asked] + [system.name for system in results])
    systems = [
        run_checkpoint(name, captioner, _generation(captioner, num_beams, options), examples)
        for name, (_, captioner, num_beams) in zip(names, asked, strict=False)
    ]
    results = [dataclasses.replace(system, name=name) for name, system in zip(names[len(asked) :], results, strict=True)]
    if options.baselines == "all" and not (captioners and any(example.split == "train" for example in learnt)):
        print("evaluation: no captions of the nearest pictures: they need a checkpoint and a train split", file=sys.stderr)
    comparison = compare(
        [*systems, *results],
        examples,
        [example for example in learnt if example.split == "train"],
        language=options.language,
        baselines=options.baselines != "none",
        neighbours=captioners[0][1] if options.baselines == "all" and captioners else None,
        humans=options.baselines == "all",
        with_meteor=options.meteor,
        synonyms=read_synonyms(options.synonyms) if options.synonyms else None,
    )
    if options.out:
        _write(options.out, comparison, examples, options)
    return comparison.as_json()


def maps(options: argparse.Namespace) -> dict[str, Any]:
    """Judge whether maps point at what their words name."""
    captioner = _loaded(options.checkpoint, options.dtype)
    if options.data == "scenes":
        return scene_pointing(captioner, held_out_scenes(options.scenes)).as_json()
    examples = [example for example in read_data(options.data) if options.split in (None, example.split)]
    if not any(example.objects for example in examples):
        raise DataError(f"{options.data!r} has no boxes; maps are judged by photographs with boxes, or by `scenes`")
    return image_pointing(captioner, examples).as_json()


def heads(options: argparse.Namespace) -> dict[str, Any]:
    """Choose the heads whose mean points best, and write them into the checkpoint where that is asked for."""
    choose_policy("cpu").apply()
    folder = checkpoint_folder(options.checkpoint)
    if options.write and folder != options.checkpoint:
        raise DataError(f"{options.checkpoint} is on a hub; `python -m model convert` or `pull` it to a folder to write to")
    checkpoint = load_checkpoint(folder)
    reads = {}
    for data in options.data:
        if data == "scenes":
            scenes = [draw_scene(SELECTION_SERIES, number) for number in range(options.scenes)]
            named = objects_of_scenes(scenes)
        else:
            named = objects_of_images([example for example in read_data(data) if example.split == options.split])
        if not named:
            raise DataError(f"{data!r} has no boxed object that a caption of its split {options.split!r} names")
        reads[data] = read_heads(checkpoint, named)
    config = dataclasses.replace(checkpoint.config.maps, head_mean=options.mean, pointing=None)
    chosen, scores = choose_heads(list(reads.values()), config)
    if options.write:
        maps = dataclasses.replace(config, heads=tuple(chosen))
        write_config(folder, dataclasses.replace(checkpoint.config, maps=maps))
    figures: dict[str, Any] = {"heads": chosen, "mean": options.mean}
    for (data, read), score in zip(reads.items(), scores, strict=True):
        every = range(read.num_heads)
        alone = {
            f"layer {head // read.heads_per_layer} head {head % read.heads_per_layer}": read.pointing([head], config)
            for head in every
        }
        figures[data] = {"words": read.num_words, "chosen": score, "all heads": read.pointing(every, config), "alone": alone}
    return figures


def golden(options: argparse.Namespace) -> dict[str, Any]:
    """Hold our tokens and scores against recorded ones, or time them beside the peer."""
    if options.candidates:
        return cost_of_many(options.folder, options.candidates)
    if options.speed:
        return cost_beside_peer(options.folder)
    figures = golden_figures(options.folder, with_meteor=options.meteor)
    if not figures["equal"]:
        print("evaluation: tokens or scores differ from the recorded ones", file=sys.stderr)
    return figures


def streams(options: argparse.Namespace) -> dict[str, Any]:
    """Time samples of tar shards beside tarfile's own stream."""
    return streaming_figures(options.samples, options.folder)


def _chosen(everything: Sequence[Example], split: str | None, data: str, results: Sequence[System]) -> list[Example]:
    """Return the examples that are scored: those of the split, every one of which all results must have."""
    examples = [example for example in everything if split in (None, example.split)]
    if split is None:
        examples = [example for example in examples if any(example.image_id in system.captions for system in results)]
    if not examples:
        splits = ", ".join(sorted({example.split for example in everything}))
        if split is None:
            theirs = next(iter(results[0].captions))
            raise DataError(
                f"{data!r} has no image that the results name: they have ids such as {theirs!r}, the data such as "
                f"{everything[0].image_id!r}; write the data's ids into the results"
            )
        raise DataError(f"{data!r} has no split {split!r}; it has {splits}")
    wanted = {example.image_id for example in examples}
    for system in results:
        if missing := sorted(wanted - set(system.captions)):
            raise DataError(f"{system.name} has no caption of {len(missing)} images, {missing[0]!r} among them")
        for image in set(system.captions) - wanted:
            if split is None:
                raise DataError(f"{system.name} has a caption of {image!r}, which {data!r} does not know")
            del system.captions[image]  # of another split
    return examples


def _captions_of_scenes(options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    sets = {"seen pairs": held_out_scenes(options.scenes), "unseen pairs": held_out_scenes(options.scenes, unseen=True)}
    folders = options.checkpoint or [DEFAULT_CHECKPOINT]
    asked = [(folder, num_beams) for folder in folders for num_beams in options.num_beams or [3]]
    for name, (folder, num_beams) in zip(distinct([_name(*one, options) for one in asked]), asked, strict=True):
        captioner = _loaded(folder, options.dtype)
        told = figures[name] = {}
        for kind, scenes in sets.items():
            pictures = [png_bytes(scene.render()) for scene in scenes]
            texts = caption_images(captioner, pictures, _generation(captioner, num_beams, options))
            told[kind] = judge_captions(texts, scenes) | invented_in_scenes(texts, scenes).as_json()
    return figures


def _generation(captioner: Captioner, num_beams: int, options: argparse.Namespace) -> GenerationOptions:
    changed = {} if options.length_penalty is None else {"length_penalty": options.length_penalty}
    strategy: Strategy = "greedy" if num_beams == 1 else "beam"
    return dataclasses.replace(captioner.config.generation, strategy=strategy, num_beams=num_beams, **changed)


def _name(folder: Path, num_beams: int, options: argparse.Namespace) -> str:
    """Return what a system is called: its folder, unless there is only one, and how it decodes."""
    told = "greedy" if num_beams == 1 else f"beam {num_beams}"
    return told if len(options.checkpoint) < 2 else f"{folder} {told}"


def _write(folder: Path, comparison: Comparison, examples: Sequence[Example], options: argparse.Namespace) -> None:
    """Write the page first: it is what takes time and may fail."""
    page = captions_page(f"Captions of {options.data}", comparison, examples)
    (folder / "captions").mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    scores = comparison.as_json() | {"images": comparison.per_image()}
    (folder / "scores.json").write_text(json.dumps(scores, ensure_ascii=False, indent=1), encoding="utf-8")
    for row in comparison.rows:
        name = re.sub(r"[^\w.()-]+", "-", row.system.name)
        write_results(row.system, folder / "captions" / f"{name}.json")


def _loaded(folder: Path, dtype: str) -> Captioner:
    captioner = Captioner.load(folder, dtype=dtype)
    captioner.policy.apply()
    print(f"device {captioner.policy.device}, {captioner.policy.reason}", file=sys.stderr)
    return captioner


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time a checkpoint, or public families beside transformers."""
    if options.peer:
        families = options.family or ["vit_gpt2", "blip"]
        figures: dict[str, Any] = {family: speed_beside_peer(family, options.dtype, options.turns) for family in families}
        return figures | {"equal": all(found["equal captions in float32"] for found in figures.values())}
    return checkpoint_speed(_loaded(options.checkpoint, options.dtype), options.turns)
