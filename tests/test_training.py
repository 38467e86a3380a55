"""Training: the loss, the schedule, the moving average, and complete small runs that stop, resume and finish."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import random

import pytest
import torch

import train
from corpus import open_dataset
from model import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    CaptionNetwork,
    GenerationOptions,
    MapConfig,
    load_checkpoint,
    save_checkpoint,
)
from tests.networks import tiny_config
from training import (
    FrozenPart,
    LoadedStep,
    TrainConfig,
    WeightAverage,
    build_network,
    caption_losses,
    choose_frozen_part,
    lr_factor,
    new_run,
    parse_arguments,
)

SHORT = [
    "--data", "scenes:24", "--freeze", "none", "--batch-size", "8", "--eval-images", "4", "--dtype", "float32", "--threads", "1",
    "--ema-decay", "0.5",
]  # fmt: skip
TINY = [
    *SHORT, "--stem", "", "--patch-size", "56", "--hidden-size", "24", "--num-heads", "2", "--encoder-layers", "1",
    "--decoder-layers", "1", "--vocab-size", "300",
]  # fmt: skip


def test_the_loss_is_the_mean_cross_entropy_with_label_smoothing():
    logits = torch.randn(7, 11, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 4, 10, 0, 3, 3, 9])
    mean = -logits.log_softmax(-1)[range(7), targets].mean()
    smoothed = 0.9 * mean - 0.1 * logits.log_softmax(-1).mean()

    torch.testing.assert_close(caption_losses(logits, targets, 0.0).mean(), mean)
    torch.testing.assert_close(caption_losses(logits, targets, 0.1).mean(), smoothed)


def test_padding_does_not_change_the_loss(tiny_network, pixels):
    rows = [[BOS_ID, 5, 6, EOS_ID], [BOS_ID, 7, 8, 9, 10, EOS_ID]]
    state = tiny_network.start(tiny_network.encode(pixels[:2]))

    def loss_of(rows, state):
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [PAD_ID] * (longest - len(row)) for row in rows])
        targets = tokens[:, 1:]
        logits, _, _ = tiny_network.decode(tokens[:, :-1], state, logits_mask=targets != PAD_ID)
        return caption_losses(logits, targets[targets != PAD_ID], 0.1).mean(), int((targets != PAD_ID).sum())

    together, count = loss_of(rows, state)
    parts = [loss_of([row], tiny_network.start(tiny_network.encode(pixels[i : i + 1]))) for i, row in enumerate(rows)]
    assert count == 8
    torch.testing.assert_close(together, sum(loss * n for loss, n in parts) / count, atol=1e-5, rtol=0)


def test_the_learning_rate_rises_in_the_warmup_and_then_follows_a_cosine():
    factors = [lr_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))
    assert factors[-1] < 0.03
    assert factors[55] == pytest.approx(0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi / 2)), abs=0.01)


def test_the_average_changes_only_with_trained_weights(tiny_network):
    network = copy.deepcopy(tiny_network).requires_grad_(True)
    network.encoder.requires_grad_(False)
    average = WeightAverage(network, FrozenPart("encoder"))
    before = network.no_image.detach().clone()
    with torch.no_grad():
        network.no_image += 1
    average.update(network, 0.5, step=1000)
    torch.testing.assert_close(average.network().no_image, before + 0.5)
    assert average.network().encoder is network.encoder, "what is never trained is shared"


def test_the_average_has_the_statistics_of_a_trained_stem(tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size, stem="resnet10t", stem_strides=(8,)))
    average = WeightAverage(network, FrozenPart("none"))
    network.train()
    network.encode(torch.randn(4, 3, 24, 32))
    average.update(network, 0.9, step=5)
    trained = dict(network.named_buffers())
    assert any("running_mean" in name for name in trained)
    assert all(torch.equal(value, trained[name]) for name, value in average.network().named_buffers())


def test_the_packaged_stem_is_frozen_and_pretrained():
    config = TrainConfig(data=("scenes:2",), run="x", hidden_size=24, num_heads=2, vocab_size=300)
    network, _ = build_network(config, [open_dataset("scenes:2")])
    stem = choose_frozen_part(network, config).module(network.encoder)
    weight = stem.backbone.conv_stem.weight
    assert weight.abs().mean() > 0.05, "ImageNet weights, not the initialization"
    assert choose_frozen_part(network, dataclasses.replace(config, freeze="none")).module(network.encoder) is None
    assert choose_frozen_part(network, dataclasses.replace(config, freeze="encoder")).module(network.encoder) is network.encoder


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).network.state_dict()


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, capsys):
    complete = [*TINY, "--run", str(tmp_path / "complete"), "--epochs", "3", "--save-steps", "2"]
    assert train.main(complete) == 0
    out = capsys.readouterr().out
    assert "distinct" in out
    assert "1 threads" in out

    stopped = [*TINY, "--run", str(tmp_path / "stopped"), "--epochs", "3", "--save-steps", "2"]

    class StoppedError(Exception):
        pass

    class StoppingTrainer(train.Trainer):
        def step(self, loaded: LoadedStep) -> dict[str, float]:
            if self.progress.step == 5:
                raise StoppedError
            return super().step(loaded)

    (tmp_path / "stopped").mkdir()
    trainer = StoppingTrainer(new_run(parse_arguments(stopped), {}))
    trainer.prepare()
    with pytest.raises(StoppedError):
        trainer.train()
    assert train.main(["--run", str(tmp_path / "stopped"), "--resume"]) == 0

    for name in ("best", "last"):
        one, two = weights_of(tmp_path / "complete" / name), weights_of(tmp_path / "stopped" / name)
        assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_resumed_run_may_use_another_device(tmp_path):
    run = tmp_path / "run"
    assert train.main([*TINY, "--run", str(run), "--epochs", "3", "--max-steps", "2"]) == 0
    state = torch.load(run / "state.pt", weights_only=True)
    state["progress"]["is_finished"] = False
    state["settings"] |= {"max_steps": 3, "device": "cuda:7"}
    torch.save(state, run / "state.pt")
    assert train.main(["--run", str(run), "--resume"]) == 1, "the device of the run is not here"
    assert train.main(["--run", str(run), "--resume", "--device", "cpu"]) == 0
    assert torch.load(run / "state.pt", weights_only=True)["settings"]["device"] == "cpu"


def test_without_max_grad_norm_gradients_are_not_clipped(tmp_path):
    trainer = train.Trainer(new_run(parse_arguments([*TINY, "--run", str(tmp_path), "--max-grad-norm", "0"]), {}))
    trainer.prepare()
    trainer.step(LoadedStep(2, (trainer.data.train[0].batch([0, 1], random.Random(0)),)))
    assert any(value.grad.abs().max() > 0 for value in trainer.trained.network.parameters() if value.grad is not None)


def test_a_finished_run_is_not_changed(tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*TINY, "--run", str(run), "--epochs", "1", "--max-steps", "2"]) == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert train.main(["--run", str(run), "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert train.main([*TINY, "--run", str(run)]) == 2, "a run is not overwritten"


def test_a_dry_run_reports_the_cost_and_writes_no_checkpoint(tmp_path, capsys):
    assert train.main([*TINY, "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "a step takes" in capsys.readouterr().out
    assert not (tmp_path / "run" / "best").exists()


def test_a_dry_run_of_a_stopped_run_changes_nothing(tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*TINY, "--run", str(run), "--epochs", "3", "--max-steps", "2"]) == 0
    state = torch.load(run / "state.pt", weights_only=True)
    state["progress"]["is_finished"] = False
    torch.save(state, run / "state.pt")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert train.main(["--run", str(run), "--resume", "--dry-run"]) == 0
    assert "a step takes" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_training_continues_a_checkpoint(tmp_path, capsys):
    assert train.main([*TINY, "--run", str(tmp_path / "one"), "--epochs", "1"]) == 0
    start = ["--epochs", "1", "--init", str(tmp_path / "one/best")]
    again = [*SHORT, "--run", str(tmp_path / "two"), *start, "--lr", "0"]
    assert train.main(again) == 0
    card = (tmp_path / "two/best/README.md").read_text()
    assert "- lr: 0.0" in card
    assert "hidden_size" not in card, "the network is the checkpoint's, not that of the flags"
    one, two = weights_of(tmp_path / "one/best"), weights_of(tmp_path / "two/best")
    assert all(torch.equal(value, two[name]) for name, value in one.items()), "a learning rate of 0 changes nothing"

    assert train.main([*SHORT, "--run", str(tmp_path / "three"), *start, "--freeze", "stem"]) == 1
    assert "has no stem" in capsys.readouterr().err


@pytest.mark.parametrize(("language", "known"), [("en", True), ("DE", True), ("fr", False)])
def test_init_keeps_map_heads_and_default_options_but_neither_pointing_nor_an_untrained_language(
    tmp_path, tokenizer, language, known
):
    maps = MapConfig(heads=((0, 1), (1, 0)), head_mean="geometric", pointing=0.75)
    options = GenerationOptions(num_beams=5, max_words=12, length_penalty=0.5)
    config = dataclasses.replace(
        tiny_config(tokenizer.size), maps=maps, generation=options, languages=("en", "de"), language_token_ids=(300, 301)
    )
    save_checkpoint(tmp_path / "start", config, CaptionNetwork(config).state_dict(), tokenizer, "# Card")
    run = tmp_path / "run"
    arguments = [*SHORT, "--run", str(run), "--init", str(tmp_path / "start"), "--language", language, "--max-steps", "1"]
    assert train.main([*arguments, "--epochs", "1", "--num-views", "1"]) == 0

    for name in ("last", "best"):
        trained = load_checkpoint(run / name).config
        assert trained.maps == dataclasses.replace(maps, pointing=None)
        assert trained.generation == options
        assert trained.license == config.license
        if known:
            assert (trained.languages, trained.language_token_ids) == (("en", "de"), (300, 301))
        else:
            assert (trained.languages, trained.language_token_ids) == (("fr",), ())
    document = json.loads((run / "last/config.json").read_text())
    assert document["maps"]["pointing"] is None
    assert document["maps"]["heads"] == [[0, 1], [1, 0]]
