"""Flags of a recipe reach the step: what a run computes differs where it should, and only there."""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
import torch
from PIL import Image

import train
from model import CaptionNetwork
from tests.networks import tiny_config
from tests.runs import lines_of
from training import (
    Batch,
    FrozenPart,
    PlannedStep,
    Ranks,
    StepLoader,
    Totals,
    TrainConfig,
    TrainingObjective,
    new_run,
    parse_arguments,
)
from training.loading import num_workers
from training.parallel import compile_blocks

QUIET = ["--sample-images", "0", "--freeze", "none", "--dropout", "0", "--drop-path", "0", "--unconditional-ratio", "0"]


def trainer_of(arguments: list[str]) -> train.Trainer:
    """Return a trainer that is ready for its first step."""
    start = new_run(parse_arguments(arguments), {})
    assert not isinstance(start, int)
    trainer = train.Trainer(start)
    trainer.prepare()
    return trainer


def losses_of(arguments: list[str], steps: int) -> list[float]:
    """Return the losses of the first steps of a run."""
    trainer = trainer_of(arguments)
    plan = [PlannedStep(number, *entry) for number, entry in enumerate(trainer.data.plan(0)[:steps])]
    losses = []
    for loaded in trainer.data.loader.load(plan, pin_memory=False):
        losses.append(trainer.step(loaded)["loss"])
        trainer.progress.count_step(1.0, losses[-1])
    return losses


@pytest.mark.parametrize(
    "flags",
    [
        ["--min-crop-area", "0.3"],
        ["--rand-augment", "2", "--rand-augment-magnitude", "10"],
        ["--unconditional-ratio", "0.9"],
        ["--label-smoothing", "0"],
        ["--drop-worst-ratio", "0.5", "--drop-worst-after", "0"],
        ["--word-presence-weight", "0.1"],
        ["--captions-per-image", "1", "--max-caption-tokens", "2"],
    ],
    ids=lambda flags: flags[0],
)
def test_the_flag_changes_the_loss_of_the_first_step(quick_run, quick_data, flags):
    for number, path in enumerate(sorted(quick_data.parent.glob("*.png"))):  # a crop of a single color is the same color
        Image.effect_noise((20, 16), 60 + number).convert("RGB").save(path)
    plain, changed = (losses_of([*quick_run, *QUIET, *more], 1) for more in ([], flags))
    assert abs(plain[0] - changed[0]) > 1e-4


def test_the_worst_captions_are_dropped_late_in_the_run_only(quick_run):
    plain = losses_of([*quick_run, *QUIET], 3)
    late = losses_of([*quick_run, *QUIET, "--drop-worst-ratio", "0.5", "--drop-worst-after", "0.33"], 3)
    assert late[:2] == plain[:2], "2 of 6 steps are the first third"
    assert late[2] < plain[2] - 1e-4


def test_word_presence_reaches_the_weights_of_the_encoder(tiny_network, pixels):
    tokens = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])
    batch = Batch((pixels[:2],), tokens, tokens[:, 1:] != 0, (0, 1))
    gradients = []
    for weight in (0.0, 1.0):
        network = copy.deepcopy(tiny_network).requires_grad_(True)
        config = TrainConfig(data=("x",), run="r", word_presence_weight=weight)
        objective = TrainingObjective(network, config, FrozenPart("none")).double()
        if objective.word_presence is not None:
            torch.nn.init.normal_(objective.word_presence.head.weight)
        objective(batch, Totals(6, 1, 2)).backward()
        gradients.append(network.encoder.vit.blocks[0].mlp.fc1.weight.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_gradient_checkpointing_computes_every_block_twice(quick_run):
    calls = {}
    for flag in ("--no-gradient-checkpointing", "--gradient-checkpointing"):
        trainer = trainer_of([*quick_run, *QUIET, flag])
        network, calls[flag] = trainer.trained.network, [0, 0]

        def count(number: int, counts: list[int] = calls[flag]):
            def hook(*_: object) -> None:
                counts[number] += 1

            return hook

        network.encoder.vit.blocks[0].register_forward_pre_hook(count(0))
        network.decoder.layers[0].register_forward_pre_hook(count(1))
        (loaded,) = trainer.data.loader.load([trainer.data.first_step()], pin_memory=False)
        trainer.step(loaded)
    assert calls == {"--no-gradient-checkpointing": [1, 1], "--gradient-checkpointing": [2, 2]}


def test_a_step_has_the_parts_of_its_rank(quick_run):
    trainer = trainer_of([*quick_run, "--accumulate", "2", "--freeze", "none"])
    config = dataclasses.replace(trainer.config, workers=0)
    step, keys = PlannedStep(0, 0, (0, 1, 2, 3, 4, 5, 6)), []
    for rank in range(2):
        loader = StepLoader(trainer.data.train, config, Ranks(rank, 2))
        (loaded,) = loader.load([step], pin_memory=False)
        assert loaded.num_images == 7
        assert len(loaded.parts) == 2
        keys += [key for part in loaded.parts for key in part.image_keys]
    whole = trainer.data.train[0].batch(list(step.images), random.Random(0)).image_keys
    assert sorted(keys) == sorted(whole), "every image is in one part of one rank"


def test_workers_are_used_where_images_are_decoded(quick_run):
    for flags, expected in (
        (["--freeze", "none", "--threads", "4"], 3),
        (["--freeze", "encoder", "--threads", "4"], 0),
        (["--freeze", "encoder", "--threads", "4", "--workers", "2"], 2),
        (["--freeze", "none", "--threads", "64"], 12),
    ):
        config = parse_arguments([*quick_run, *flags])
        data = trainer_of([*quick_run, *flags[:2]]).data.train
        assert num_workers(config, data) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch deprecates
def test_every_block_and_layer_is_compiled_and_their_names_stay(tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size))
    names = list(network.state_dict())
    compile_blocks(network)
    parts = [*network.encoder.vit.blocks, *network.decoder.layers]
    assert all(part._compiled_call_impl is not None for part in parts)
    assert list(network.state_dict()) == names


def test_a_row_of_the_log_has_the_names_of_the_docs(quick_run, tmp_path):
    assert train.main([*quick_run, "--freeze", "none", "--max-steps", "1", "--sample-images", "0"]) == 0
    row = next(row for row in lines_of(tmp_path / "run") if "loss" in row)
    assert {"loss", "grad_norm", "lr", "encoder_lr", "images_per_second", "data_wait", "elapsed", "memory"} <= row.keys()
