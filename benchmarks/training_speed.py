"""Training images per second of train.py, next to transformers' Trainer with a VisionEncoderDecoderModel of equal size.

Both read the same JPEG files and captions, with the same tokens, images per step, numeric type and threads, in turns.
transformers has no other way than one row per caption: with several captions, each has an encoder pass of its own image.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import train
from corpus import open_dataset
from model import CaptionTokenizer, num_parameters
from training import PlannedStep, new_run, parse_arguments

_HIDDEN, _HEADS, _ENCODER_LAYERS, _DECODER_LAYERS, _VOCAB, _IMAGE = 192, 3, 6, 4, 2000, 224
_PATCH = 16
_WARMUP = 2  # steps of a turn that are not timed
_MAX_TOKENS = 40
_Turn = Callable[[int], float]  # steps -> images per second


def compare_training_speed(batch_size: int, steps: int, turns: int, dtype: str, captions: int) -> dict[str, Any]:
    """Return images per second of both for `captions` captions per image, and their ratio, median and range over the turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder, 2 * batch_size)
        own, trainer = _own_turn(folder, batch_size, dtype, captions)
        peer, model = _peer_turn(folder, batch_size, captions, trainer)
        rates: dict[str, list[float]] = {"ours": [], "transformers": []}
        for _ in range(turns):
            for key, turn in (("ours", own), ("transformers", peer)):
                rates[key].append(turn(steps))
        ratios = [own / peer for own, peer in zip(rates["ours"], rates["transformers"], strict=True)]
        return {
            "captions per image": captions,
            "parameters, millions": f"{num_parameters(trainer.trained.network) / 1e6:.2f} and {num_parameters(model) / 1e6:.2f}",
            "numeric type": str(trainer.policy.dtype).removeprefix("torch."),
            "images per second, ours": _spread(rates["ours"]),
            "images per second, transformers": _spread(rates["transformers"]),
            "ratio": _spread(ratios),
        }


def _write_images(folder: Path, count: int) -> None:
    """Write scenes as JPEG files of the encoder's size, and a table of their captions."""
    lines = ["image,caption"]
    for number, entry in enumerate(open_dataset(f"scenes:{count}").split("train")):
        entry.load().resize((_IMAGE, _IMAGE)).save(folder / f"{number}.jpg", quality=90)
        lines += [f'{number}.jpg,"{caption}"' for caption in (entry.captions * 5)[:5]]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _own_turn(folder: Path, batch_size: int, dtype: str, captions: int) -> tuple[_Turn, train.Trainer]:
    arguments = [
        "--data", str(folder / "captions.csv"), "--run", str(folder / "run"), "--from-scratch", "--val-share", "0",
        "--freeze", "none",
        "--stem", "", "--patch-size", str(_PATCH), "--hidden-size", str(_HIDDEN), "--num-heads", str(_HEADS), "--encoder-layers",
        str(_ENCODER_LAYERS), "--decoder-layers", str(_DECODER_LAYERS), "--vocab-size", str(_VOCAB), "--batch-size",
        str(batch_size),
        "--captions-per-image", str(captions), "--num-views", "1", "--dtype", dtype, "--workers", "0", "--max-steps", "100000",
        "--dropout", "0.1", "--drop-path", "0", "--label-smoothing", "0", "--no-check", "--no-class-token", "--no-null-key",
    ]  # fmt: skip
    config = parse_arguments(arguments)
    with _silent():
        start = new_run(config, {})
        assert not isinstance(start, int), "the data is our own"
        trainer = train.Trainer(start)
        trainer.prepare()

    def turn(steps: int) -> float:
        rng = random.Random(0)
        images = [tuple(rng.sample(range(2 * batch_size), batch_size)) for _ in range(_WARMUP + steps)]
        planned = [PlannedStep(number, 0, indices) for number, indices in enumerate(images)]
        times = []
        for loaded in trainer.data.loader.load(planned, pin_memory=False):
            trainer.step(loaded)
            times.append(time.perf_counter())
        return steps * batch_size / (times[-1] - times[_WARMUP - 1])

    return turn, trainer


def _peer_turn(folder: Path, batch_size: int, captions: int, trainer: train.Trainer) -> tuple[_Turn, Any]:
    import transformers

    tokenizer = trainer.trained.tokenizer
    encoder = transformers.ViTConfig(
        hidden_size=_HIDDEN, num_hidden_layers=_ENCODER_LAYERS, num_attention_heads=_HEADS, intermediate_size=4 * _HIDDEN,
        image_size=_IMAGE, patch_size=_PATCH,
    )  # fmt: skip
    decoder = transformers.GPT2Config(
        vocab_size=tokenizer.size, n_embd=_HIDDEN, n_layer=_DECODER_LAYERS, n_head=_HEADS, n_positions=192,
        add_cross_attention=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = transformers.VisionEncoderDecoderModel(config)
    rows = _PeerRows(folder, tokenizer, captions)

    class Clock(transformers.TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Notes when each step has ended."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    def turn(steps: int) -> float:
        clock, is_bfloat16 = Clock(), trainer.policy.dtype == torch.bfloat16
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "peer"), per_device_train_batch_size=batch_size, max_steps=_WARMUP + steps, use_cpu=True,
            bf16=is_bfloat16, learning_rate=6e-4, weight_decay=0.05, max_grad_norm=1.0, logging_steps=10_000, save_strategy="no",
            report_to=[], disable_tqdm=True, dataloader_num_workers=0, dataloader_pin_memory=False,
        )  # fmt: skip
        peer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, data_collator=_collated, callbacks=[clock])
        with _silent():
            peer.train()
        # A step has batch_size captions: an image is done when it has been trained on with each of its captions.
        return steps * batch_size / captions / (clock.times[-1] - clock.times[_WARMUP - 1])

    return turn, model


class _PeerRows(torch.utils.data.Dataset[dict[str, Any]]):
    """A row per caption: the image, decoded and normalized by transformers' processor, and the caption's ids."""

    def __init__(self, folder: Path, tokenizer: CaptionTokenizer, captions: int) -> None:
        import transformers

        self._processor = transformers.ViTImageProcessor(size={"height": _IMAGE, "width": _IMAGE})
        entries = open_dataset(str(folder / "captions.csv")).split("train")
        self._rows = [
            (folder / f"{entry.image_id}.jpg", [*tokenizer.encode(text)[:_MAX_TOKENS], 2])
            for entry in entries
            for text in entry.captions[:captions]
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, ids = self._rows[index]
        with Image.open(path) as image:
            pixels = self._processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": ids}


def _collated(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["labels"]) for row in rows)
    labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows])
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels}


@contextmanager
def _silent() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(level)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def add_training_command(subparsers: Any) -> None:
    """Add `training` to the subparsers of a command line."""
    training = subparsers.add_parser("training", help="training images per second, next to transformers' Trainer")
    training.add_argument("--batch-size", type=int, default=16, metavar="N", help="images per step (default: 16)")
    training.add_argument("--steps", type=int, default=6, metavar="N", help="timed steps of a turn (default: 6)")
    training.add_argument("--turns", type=int, default=5, metavar="N", help="turns of each (default: 5)")
    training.add_argument("--dtype", default="auto", help="numeric type of the products of both (default: auto)")
    training.add_argument("--json", action="store_true", help="print the figures as JSON")
    training.set_defaults(run=_training)


def _training(options: argparse.Namespace) -> dict[str, Any]:
    return {
        f"{captions} captions per image": compare_training_speed(
            options.batch_size, options.steps, options.turns, options.dtype, captions
        )
        for captions in (1, 5)
    }
