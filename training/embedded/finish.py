"""The last steps of the recipe: word boxes, calibration, figures and the card of the trained checkpoint.

Everything is chosen on validation images of Flickr8k: neither its test split nor an image of `evaluation_ids.txt` decides
anything.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from corpus import CaptionedImage, open_dataset
from evaluation import png_bytes
from model import (
    SHARD_BYTES,
    CaptionerError,
    GenerationOptions,
    ModelConfig,
    load_checkpoint,
    read_config,
    save_checkpoint,
    write_config,
)
from training.embedded.card import card
from training.embedded.data import EmbeddedData
from training.regions import DetectedBox, read_detections

BOX_IMAGES = 400  # of Flickr8k's validation split, whose detected objects choose the threshold of word boxes
BEAMS = ("--num-beams", "3", "--num-beams", "1")
_MIN_SCORE = 0.5  # a weaker detection is no annotated box
_LICENSE = "research and education only (trained on Flickr8k and photographs of COCO); see the card"

Figures = dict[str, Any]


def finish(data: EmbeddedData, trained: Path, run: Path) -> Path:
    """Return RUN/default: the trained checkpoint with its defaults, boxes and confidence, and its figures in RUN/figures."""
    folder = run / "default"
    if not folder.exists():
        checkpoint = load_checkpoint(trained)
        config = dataclasses.replace(
            checkpoint.network.config, license=_LICENSE, generation=GenerationOptions(length_penalty=0.7, style="sentence")
        )
        save_checkpoint(
            folder, config, checkpoint.network.state_dict(), checkpoint.tokenizer, "Not judged yet.\n",
            dtype=torch.float16, shard_bytes=SHARD_BYTES,
        )  # fmt: skip
    boxes = run / "boxes"
    if not (boxes / "data.jsonl").exists():
        write_boxes(boxes, data)
    flickr8k, coco, own = str(data.flickr8k), str(data.coco), ["--checkpoint", str(folder)]
    figures: dict[str, Figures] = {
        "boxes": figure(run, "boxes", ["boxes", "--data", str(boxes / "data.jsonl"), "--write", *own]),
        "calibration": figure(run, "calibration", ["calibrate", "--data", flickr8k, "--write", *own]),
    }
    everything = {
        "coco": ["captions", "--data", coco, "--split", "val", "--training", flickr8k, "--baselines", "all", *BEAMS, *own],
        "flickr8k": ["captions", "--data", flickr8k, "--baselines", "all", *BEAMS, *own],
        "scenes": ["captions", "--data", "scenes", *own],
        "maps_coco": ["maps", "--data", coco, "--split", "val", "--controls", "--faithfulness", *own],
        "maps_scenes": ["maps", "--data", "scenes", "--controls", "--faithfulness", *own],
    }
    languages = read_config(trained).languages
    for language in languages[1:]:
        everything[language] = ["captions", "--data", flickr8k, "--language", language, *own]
    for name, arguments in everything.items():
        figures[name] = figure(run, name, arguments)
    config = read_config(folder)
    maps = dataclasses.replace(config.maps, pointing=round(figures["maps_coco"]["pointing"], 3))
    write_config(folder, offering(dataclasses.replace(config, maps=maps), learned_languages(languages, figures)))
    partial = folder / "README.partial"
    partial.write_text(card(figures, card_values(folder)), encoding="utf-8")
    partial.replace(folder / "README.md")
    return folder


def figure(run: Path, name: str, arguments: Sequence[str]) -> Figures:
    """Return the result of a command of `python -m evaluation`, kept in RUN/figures/NAME.json. Raises CaptionerError."""
    file = run / "figures" / f"{name}.json"
    if not file.exists():
        command = [sys.executable, "-m", "evaluation", *arguments, "--json"]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            raise CaptionerError(f"`python -m evaluation {' '.join(arguments)}` has failed; the lines above say why")
        file.parent.mkdir(exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(process.stdout.splitlines()[-1] + "\n", encoding="utf-8")
        partial.replace(file)
    read: Figures = json.loads(file.read_text(encoding="utf-8"))
    return read


def learned_languages(languages: Sequence[str], figures: dict[str, Figures]) -> list[str]:
    """Return the first language, and those whose captions are better than one caption for all images (by the interval)."""
    learned = [languages[0]]
    for name in languages[1:]:
        (system,) = figures[name]["systems"].values()
        if system["intervals"]["CIDEr"][0] > figures[name]["baselines"]["best constant caption"]["CIDEr"]:
            learned.append(name)
    return learned


def offering(config: ModelConfig, languages: Sequence[str]) -> ModelConfig:
    """Return the config with these of its languages only; the tokenizer keeps the tokens of the others."""
    ids = dict(zip(config.languages, config.language_token_ids, strict=True))
    kept = [name for name in config.languages if name in languages]
    return dataclasses.replace(config, languages=tuple(kept), language_token_ids=tuple(ids[name] for name in kept))


def card_values(folder: Path) -> dict[str, Any]:
    """Return what the card says of the checkpoint itself."""
    checkpoint = load_checkpoint(folder)
    config = checkpoint.network.config
    return {
        "languages": ", ".join(config.languages),
        "parameters": sum(value.numel() for value in checkpoint.network.parameters()) / 1e6,
        "megabytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6,
        "tokens": config.decoder.vocab_size,
        "heads": len(config.maps.heads),
        "threshold": config.maps.box_threshold,
        "length_penalty": config.generation.length_penalty,
    }


def write_boxes(folder: Path, data: EmbeddedData) -> None:
    """Write images of Flickr8k's validation split with what the detector is sure of as annotated boxes."""
    detections = read_detections(data.detections("flickr8k"))
    lines: list[str] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for entry in open_dataset(str(data.flickr8k)).split("val"):
        sure = [box for box in detections.get(entry.image_id, []) if box.score >= _MIN_SCORE]
        if sure and len(lines) < BOX_IMAGES:
            lines.append(json.dumps(_boxed(folder, entry, sure)) + "\n")
    partial = folder / "data.partial"
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(folder / "data.jsonl")


def _boxed(folder: Path, entry: CaptionedImage, boxes: Sequence[DetectedBox]) -> dict[str, Any]:
    image = entry.load()
    (folder / "images" / f"{entry.image_id}.png").write_bytes(png_bytes(image))
    width, height = image.size
    pixels = [[box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height, box.name] for box in boxes]
    return {
        "image": f"images/{entry.image_id}.png",
        "split": "val",
        "captions": list(entry.captions),
        "width": width,
        "height": height,
        "boxes": pixels,
    }
