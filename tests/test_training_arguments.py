"""The command line of train.py: flags, wrong use, and folders that a run does not write into."""

from __future__ import annotations

import dataclasses

import pytest

import train
from tests.test_training import TINY
from training import TrainConfig, make_parser, parse_arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "scenes:4"], "--run FOLDER is required"),
        (["--run", "x"], "--data DATA is required"),
        (["--run", "x", "--data", "scenes", "--batch-size", "0"], "--batch-size is 0"),
        (["--run", "x", "--data", "scenes", "--dropout", "1.5"], "--dropout is 1.5"),
        (["--run", "x", "--data", "scenes", "--stem", "", "--freeze", "stem"], "--freeze stem needs a stem"),
        (["--run", "x", "--data", "scenes", "--pretrained"], "--pretrained needs --encoder NAME"),
        (["--run", "x", "--data", "scenes", "--encoder", "v", "--patch-size", "8"], "--patch-size cannot be used with --encoder"),
        (["--run", "x", "--data", "scenes", "--color", "red"], "--color"),
        (["--run", "x", "--data", "scenes", "--init", "y", "--hidden-size", "96"], "--hidden-size cannot be used with --init"),
    ],
)
def test_wrong_use_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_data_ends_with_status_1(tmp_path, capsys):
    assert train.main(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_run_does_not_write_into_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/captions.json").write_text("{}")
    assert train.main([*TINY, "--run", str(tmp_path / "data")]) == 2
    assert "contains 'captions.json', which is not a run's" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert train.main([*TINY, "--run", str(tmp_path / "file/run"), "--epochs", "1", "--max-steps", "1"]) == 1
    assert "file" in capsys.readouterr().err


def test_a_run_that_was_killed_during_its_first_save_can_start_again(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "state.pt.partial").write_bytes(b"PK")
    assert train.main([*TINY, "--run", str(run), "--epochs", "1", "--max-steps", "1"]) == 0
    assert not (run / "state.pt.partial").exists()


def test_flags_set_the_fields_of_the_config():
    config = parse_arguments(["--run", "x", "--data", "a", "--data", "b", "--stem-strides", "8", "16", "--no-null-key"])
    assert config.data == ("a", "b")
    assert config.stem_strides == (8, 16)
    assert not config.null_key
    flags = {flag for action in make_parser()._actions for flag in action.option_strings}
    assert {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainConfig)} <= flags
