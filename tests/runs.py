"""Quick runs of train.py on a few small images, and runs that are killed."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from corpus import CaptionDataset, CaptionedImage
from model import CaptionNetwork, CaptionTokenizer, GenerationOptions, MapConfig, save_checkpoint
from tests.networks import redraw, tiny_config
from training import (
    LoadedStep,
    Source,
    new_run,
    parse_arguments,
)

QUICK = ["--batch-size", "4", "--dtype", "float32", "--threads", "1", "--num-views", "1", "--ema-decay", "0.5"]


def write_images(folder: Path, count: int, captions: str = "a dog number {} on the grass") -> Path:
    """Write PNG files of random colors and a CSV of their captions; returns the CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    lines = ["image,caption"]
    for number in range(count):
        color = tuple(rng.randrange(256) for _ in range(3))
        Image.new("RGB", (20, 16), color).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{captions.format(number)}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder / "captions.csv"


def write_start(folder: Path, tokenizer: CaptionTokenizer) -> Path:
    """Write a checkpoint to start from, with random weights; returns its folder."""
    maps = MapConfig(heads=((0, 1), (1, 0)), head_mean="geometric", pointing=0.75)
    options = GenerationOptions(num_beams=5, length_penalty=0.5)
    config = dataclasses.replace(tiny_config(tokenizer.size), maps=maps, generation=options)
    torch.manual_seed(0)
    network = CaptionNetwork(config)
    redraw(network, 3)
    save_checkpoint(folder, config, network.state_dict(), tokenizer, "# Card")
    return folder


def command(data: Path, start: Path, folder: Path) -> list[str]:
    """Return the command line of a quick run of two epochs from a checkpoint."""
    return [*QUICK, "--data", str(data), "--run", str(folder), "--init", str(start), "--epochs", "2"]


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def source_of(count: int) -> Source:
    """Return a source of so many images without a val split."""
    load = functools.partial(Image.new, "RGB", (4, 4))
    entries = [CaptionedImage(str(number), ("a dog",), load, False, str(number)) for number in range(count)]
    return Source(CaptionDataset("a.csv", {"train": entries}))


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row in lines_of(folder) if "loss" in row]


class StoppedError(Exception):
    """A run that is killed."""


def run_until(arguments: list[str], step: int) -> None:
    """Run until a step begins, then stop as a killed process does: without any cleaning."""

    class StoppingTrainer(train.Trainer):
        def step(self, loaded: LoadedStep) -> dict[str, float]:
            if self.progress.step == step:
                raise StoppedError
            return super().step(loaded)

    beginning = new_run(parse_arguments(arguments), {})
    assert not isinstance(beginning, int)
    Path(beginning.config.run).mkdir()
    trainer = StoppingTrainer(beginning)
    trainer.prepare()
    with pytest.raises(StoppedError):
        trainer.train()


@pytest.fixture
def quick_data(tmp_path: Path) -> Path:
    """A CSV of twelve images."""
    return write_images(tmp_path / "data", 12)


@pytest.fixture
def quick_start(tmp_path: Path, tokenizer: CaptionTokenizer) -> Path:
    """A checkpoint to start from."""
    return write_start(tmp_path / "start", tokenizer)


@pytest.fixture
def quick_run(quick_data: Path, quick_start: Path, tmp_path: Path) -> list[str]:
    """The command line of a run with them, in the folder `run`."""
    return command(quick_data, quick_start, tmp_path / "run")
