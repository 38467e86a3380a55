"""Runs that were interrupted or are to be longer: exact continuation, changed flags, changed data, damaged states."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from model import CheckpointError, ConfigError, load_checkpoint, save_checkpoint
from tests.networks import redraw
from tests.runs import QUICK, command, lines_of, run_until, steps_of, write_images, write_start
from tests.test_training import TINY
from training import (
    FrozenPart,
    Progress,
    RunLog,
    TrainConfig,
    WeightAverage,
    load_state,
    read_log,
)
from training.resume import CHANGEABLE, resumed_config
from training.state import recover_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer) -> Path:
    """The folder of a finished run, which tests do not change."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = command(write_images(folder / "data", 12), write_start(folder / "start", tokenizer), folder / "run")
    assert train.main(arguments) == 0
    return folder / "run"


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_a_killed_run_ends_with_the_weights_and_the_log_of_an_uninterrupted_one(quick_run, tmp_path, freeze):
    arguments = [*quick_run, "--epochs", "3", "--save-steps", "2", "--freeze", freeze]
    assert train.main([*arguments, "--run", str(tmp_path / "complete")]) == 0
    run_until([*arguments, "--run", str(tmp_path / "stopped")], step=5)
    with (tmp_path / "stopped/log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a line that was cut off
    assert steps_of_raw(tmp_path / "stopped") == [1, 2, 3, 4, 5], "the fifth step is repeated"
    assert train.main(["--run", str(tmp_path / "stopped"), "--resume"]) == 0
    for name in ("best", "last"):
        one, two = (load_checkpoint(tmp_path / folder / name).network.state_dict() for folder in ("complete", "stopped"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    rows = [lines_of(tmp_path / folder) for folder in ("complete", "stopped")]
    assert steps_of(tmp_path / "stopped") == list(range(1, 10)), "each step once"
    for row in (*rows[0], *rows[1]):
        row.pop("elapsed")
        for name in ("images_per_second", "data_wait", "memory"):
            row.pop(name, None)
    assert rows[0] == rows[1]


def steps_of_raw(folder: Path) -> list[int]:
    return [row["step"] for row in read_log(folder / "log.jsonl") if "loss" in row]


def test_a_name_with_other_line_separators_is_one_row_of_the_log(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write_validation(Progress(step=3), "data\u2028of\x85us", {"loss": 1.0})
    with RunLog(tmp_path, 3):
        pass  # a resumed run reads it, and writes it again
    (row,) = read_log(tmp_path / "log.jsonl")
    assert (row["step"], row["validation"], row["loss"]) == (3, "data\u2028of\x85us", 1.0)


def test_the_log_has_a_row_for_each_step_and_each_validation(quick_run, tmp_path):
    assert train.main(quick_run) == 0
    rows = lines_of(tmp_path / "run")
    steps = [row for row in rows if "loss" in row]
    scores = [row for row in rows if "validation" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in steps] == [1, 1, 1, 2, 2, 2]
    assert all(
        row.keys() == {"step", "epoch", "elapsed", "loss", "lr", "grad_norm", "images_per_second", "data_wait", "memory"}
        for row in steps
    )
    assert [row["elapsed"] for row in steps] == sorted(row["elapsed"] for row in steps)
    assert [row["step"] for row in scores] == [0, 3, 6], "the checkpoint of --init is validated first"
    assert all({"CIDEr", "BLEU-4", "ROUGE-L", "distinct", "images"} <= row.keys() for row in scores)
    curves = b"".join(path.read_bytes() for path in (tmp_path / "run/curves").iterdir())
    assert {tag for tag in (b"train/loss", b"train/lr", b"validation/captions.csv/CIDEr") if tag in curves} == {
        b"train/loss", b"train/lr", b"validation/captions.csv/CIDEr",
    }  # fmt: skip


def test_frozen_weights_are_not_in_the_state(quick_run, quick_start, tmp_path):
    assert train.main(quick_run) == 0
    parts = load_state(tmp_path / "run").parts
    names = set(load_checkpoint(quick_start).network.state_dict())
    for part in ("network", "average"):
        assert set(parts[part]) == {name for name in names if not name.startswith("encoder.")}


def test_the_average_shares_the_frozen_module_and_nothing_else(tiny_network):
    average = WeightAverage(tiny_network, FrozenPart("encoder")).network()
    assert average.encoder is tiny_network.encoder
    assert average.decoder is not tiny_network.decoder
    assert WeightAverage(tiny_network, FrozenPart("none")).network().encoder is not tiny_network.encoder


def test_random_frozen_weights_are_kept_in_the_state(quick_data, tmp_path):
    network = ["--stem", "", "--patch-size", "56", "--hidden-size", "24", "--num-heads", "2", "--encoder-layers", "1"]
    network += ["--decoder-layers", "1", "--vocab-size", "300", "--freeze", "encoder", "--from-scratch"]
    arguments = [*QUICK, "--data", str(quick_data), "--run", str(tmp_path / "run"), *network, "--max-steps", "1"]
    assert train.main(arguments) == 0
    assert any(name.startswith("encoder.") for name in load_state(tmp_path / "run").parts["network"])
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--max-steps", "2"]) == 0


@pytest.mark.parametrize(
    ("flags", "total", "epochs"),
    [(["--epochs", "4"], 12, 4), (["--max-steps", "7"], 7, 3), (["--epochs", "5", "--max-steps", "8"], 8, 5)],
)
def test_a_finished_run_goes_on_to_the_number_that_resume_names(quick_run, tmp_path, capsys, flags, total, epochs):
    assert train.main([*quick_run, "--max-steps", "4"]) == 0
    assert train.main(["--run", str(tmp_path / "run"), "--resume", *flags]) == 0
    output = capsys.readouterr().out
    assert f"continues after 4 of {total} steps" in output
    assert f"follows from here on the schedule of a run of {total} steps" in output
    assert steps_of(tmp_path / "run") == list(range(1, total + 1))
    state = load_state(tmp_path / "run")
    assert state.progress.is_finished
    assert (state.progress.step, state.settings["epochs"]) == (total, epochs)
    last = lines_of(tmp_path / "run")[-1]
    assert (last["step"], last["validation"]) == (total, str(tmp_path / "data/captions.csv"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.01"], "--lr 0.01 (it has --lr 0.0001)"),
        (["--batch-size", "8", "--seed", "3"], "--seed 3 (it has --seed 0), --batch-size 8 (it has --batch-size 4)"),
        (["--no-check"], "--no-check (it has --check)"),
        (["--data", "other.csv"], "--data other.csv (it has --data "),
        (["--val-share", "0.5"], "--val-share 0.5"),
        (["--epochs", "1"], "end it after 3 steps, but it has done 6; name more"),
        (["--max-steps", "2"], "end it after 2 steps, but it has done 6; name more"),
    ],
)
def test_a_flag_that_resume_cannot_obey_is_refused_by_name(finished, capsys, flags, message):
    before = (finished / "state.pt").read_bytes(), (finished / "log.jsonl").read_bytes()
    assert train.main(["--run", str(finished), "--resume", *flags]) == 2
    assert message in capsys.readouterr().err
    assert before == ((finished / "state.pt").read_bytes(), (finished / "log.jsonl").read_bytes())


def test_every_setting_that_resume_may_change_is_a_flag_and_is_obeyed():
    settings = dataclasses.asdict(TrainConfig(data=("scenes",), run="x", epochs=3))
    values = {"run": "y", "resume": True, "dry_run": True, "feature_cache": "z", "epochs": 4, "max_steps": 5, "eval_epochs": 6}
    values |= {"save_steps": 7, "device": "cpu", "dtype": "float32", "threads": 2, "from_scratch": True, "patience": 3}
    values |= {"sample_images": 1, "accumulate": 2, "gradient_checkpointing": True, "compile": True, "fsdp": True, "workers": 1}
    assert values.keys() == CHANGEABLE
    resumed = dataclasses.asdict(resumed_config(settings, values))
    assert resumed == settings | values


def test_the_revision_of_a_hub_that_a_run_was_started_with_is_no_other_checkpoint():
    settings = dataclasses.asdict(TrainConfig(data=("scenes",), run="x", epochs=3, init="hub:A/b@0123abc"))
    assert resumed_config(settings, {"run": "x", "init": "hub:A/b"}).init == "hub:A/b@0123abc"
    with pytest.raises(ConfigError, match="--init hub:A/c"):
        resumed_config(settings, {"run": "x", "init": "hub:A/c"})


def test_a_run_that_patience_has_ended_can_be_made_longer(quick_run, tmp_path):
    flags = ["--lr", "0", "--epochs", "3", "--eval-epochs", "1", "--patience", "2", "--sample-images", "0"]
    assert train.main([*quick_run, *flags]) == 0
    assert load_state(tmp_path / "run").progress.epoch == 2
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--epochs", "9"]) == 0
    assert load_state(tmp_path / "run").progress.epoch == 4, "two more validations"


def test_the_newer_of_two_states_is_read(quick_run, tmp_path):
    assert train.main([*quick_run, "--max-steps", "1"]) == 0
    (tmp_path / "run/state").mkdir()
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(tmp_path / "run")
    os.utime(tmp_path / "run/state", (1, 1))
    assert load_state(tmp_path / "run").progress.step == 1
    (tmp_path / "run/state").rename(tmp_path / "run/.state.previous")
    recover_state(tmp_path / "run")
    assert (tmp_path / "run/state").exists()


def test_the_command_line_of_a_run_with_resume_added_is_accepted(quick_run, capsys):
    assert train.main(quick_run) == 0
    assert train.main([*quick_run, "--resume"]) == 0
    assert "as many as these flags say; nothing to do" in capsys.readouterr().out


def test_a_state_of_an_older_version_is_read(quick_run, quick_start, tmp_path):
    arguments = [*quick_run, "--val-share", "0"]
    assert train.main(arguments) == 0
    path = tmp_path / "run/state.pt"
    document = torch.load(path, weights_only=True)
    frozen = {
        name: value for name, value in load_checkpoint(quick_start).network.state_dict().items() if name.startswith("encoder.")
    }
    for part in ("network", "average"):
        document["parts"][part] |= frozen
    del document["sources"], document["frozen"], document["settings"]["val_share"]
    document["progress"] = {name: document["progress"][name] for name in ("epoch", "batch", "step", "best", "is_finished")}
    torch.save(document, path)
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--epochs", "3"]) == 0
    assert not load_state(tmp_path / "run").sources[0]["held_out"], "it did not hold out images"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("state cut", "is damaged or is not a run's state"),
        ("state of something else", "is damaged or is not a run's state"),
        ("empty state", "is damaged or is not a run's state"),
        ("image added", "has other images or captions than when"),
        ("caption changed", "has other images or captions than when"),
        ("encoder of --init changed", "are not those that"),
        ("--init removed", "is not a folder"),
    ],
)
def test_a_run_that_cannot_be_resumed_says_why(quick_run, quick_data, quick_start, tmp_path, capsys, change, message):
    assert train.main([*quick_run, "--max-steps", "1"]) == 0
    state = tmp_path / "run/state.pt"
    if change == "state cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif change == "state of something else":
        torch.save({"weights": torch.zeros(2)}, state)
    elif change == "empty state":
        state.write_bytes(b"")
    elif change == "image added":
        Image.new("RGB", (20, 16)).save(quick_data.parent / "new.png")
        quick_data.write_text(quick_data.read_text() + "new.png,a cat\n")
    elif change == "caption changed":
        quick_data.write_text(quick_data.read_text().replace("dog number 4", "cat number 4"))
    elif change == "encoder of --init changed":
        checkpoint = load_checkpoint(quick_start)
        redraw(checkpoint.network.encoder, 4)
        save_checkpoint(quick_start, checkpoint.config, checkpoint.network.state_dict(), checkpoint.tokenizer, "# Card")
    else:
        quick_start.rename(tmp_path / "moved")
    before = state.read_bytes()
    capsys.readouterr()
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--epochs", "2"]) == 1
    assert message in capsys.readouterr().err
    assert state.read_bytes() == before


def test_a_run_does_not_continue_with_another_text(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a red square\n" * 8)
    run = ["--run", str(tmp_path / "run")]
    assert train.main([*TINY, *run, "--text", str(text), "--max-steps", "2"]) == 0
    text.write_text("a blue square\n" * 8)
    assert train.main([*run, "--resume", "--max-steps", "3"]) == 1
    assert f"{text} has changed since {tmp_path / 'run'} was started" in capsys.readouterr().err
    text.write_text("a red square\n" * 8)
    assert train.main([*run, "--resume", "--max-steps", "3"]) == 0
