"""Runs that fail or are stopped: signals, steps that are not finite, too little memory or disk,"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import train
from evaluation import score_captions
from model import load_checkpoint
from tests.processes import largest_difference, run_ranks, state_tensors
from tests.runs import lines_of, steps_of
from training import LoadedStep, Progress, StepGuard, StopSignals, TrainConfig, bar_text, collapse_alarm, load_state, memory_used
from training.health import MAX_SKIPPED, DivergedError

ROOT = Path(__file__).parent.parent
FAST = ["--sample-images", "0", "--epochs", "4"]


def run_with(monkeypatch: pytest.MonkeyPatch, step: int, action) -> None:
    """Let `action` happen when a step of the run begins."""
    original = train.Trainer.step

    def changed(trainer: train.Trainer, loaded: LoadedStep) -> dict[str, float]:
        if trainer.progress.step == step:
            action(trainer)
        return original(trainer, loaded)

    monkeypatch.setattr(train.Trainer, "step", changed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_its_step_with_its_state_saved(quick_run, tmp_path, monkeypatch, capsys, number):
    assert train.main([*quick_run, *FAST, "--run", str(tmp_path / "complete")]) == 0
    with monkeypatch.context() as patch:
        run_with(patch, 4, lambda _: os.kill(os.getpid(), number))
        assert train.main([*quick_run, *FAST, "--run", str(tmp_path / "stopped")]) == 128 + number
    assert "stopped by a signal after step 5; the state of step 5 is saved" in capsys.readouterr().err
    assert load_state(tmp_path / "stopped").progress.step == 5
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the handlers are as they were"
    assert train.main(["--run", str(tmp_path / "stopped"), "--resume"]) == 0
    assert largest_difference(state_tensors(tmp_path / "complete"), state_tensors(tmp_path / "stopped")) == 0


def test_a_second_signal_ends_a_run_at_once():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=lambda: StopSignals().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "another thread can install no handlers"


def test_a_step_that_is_not_finite_changes_no_weight(quick_run, tmp_path, monkeypatch):
    weights = []

    def spoil(trainer: train.Trainer) -> None:
        weights.append({name: value.clone() for name, value in trainer.trained.network.state_dict().items()})
        with torch.no_grad():
            spoiled.append(trainer.trained.network.no_image.clone())
            trainer.trained.network.no_image.fill_(math.nan)

    spoiled: list[torch.Tensor] = []
    original = train.Trainer.step

    def step(trainer: train.Trainer, loaded: LoadedStep) -> dict[str, float]:
        if trainer.progress.step != 3:
            return original(trainer, loaded)
        spoil(trainer)
        values = original(trainer, loaded)
        with torch.no_grad():
            trainer.trained.network.no_image.copy_(spoiled[0])
        assert not math.isfinite(values["loss"])
        assert all(torch.equal(value, weights[0][name]) for name, value in trainer.trained.network.state_dict().items())
        return values

    monkeypatch.setattr(train.Trainer, "step", step)
    assert train.main([*quick_run, *FAST, "--unconditional-ratio", "0.9"]) == 0
    losses = [row["loss"] for row in lines_of(tmp_path / "run") if "loss" in row]
    assert losses[3] is None
    assert all(math.isfinite(loss) for number, loss in enumerate(losses) if number != 3)
    assert all(value.isfinite().all() for value in load_checkpoint(tmp_path / "run/last").network.state_dict().values())


def test_a_run_that_diverges_ends_and_says_what_to_do(quick_run, tmp_path, monkeypatch, capsys):
    with torch.no_grad():
        run_with(monkeypatch, 2, lambda trainer: trainer.trained.network.no_image.data.fill_(math.nan))
    flags = ["--unconditional-ratio", "0.9", "--sample-images", "0", "--epochs", "9", "--max-grad-norm", "0", "--save-steps", "2"]
    assert train.main([*quick_run, *flags]) == 1
    error = capsys.readouterr().err
    assert f"was not finite in {MAX_SKIPPED} steps in a row" in error
    assert "--lr below 0.0001 or --max-grad-norm 1" in error
    guard = StepGuard(TrainConfig(data=("x",), run="r"))
    for _ in range(MAX_SKIPPED - 1):
        assert not guard.check(math.nan, 1.0, 0)
    assert guard.check(1.0, 1.0, 0), "a finite step in between"
    for _ in range(MAX_SKIPPED - 1):
        assert not guard.check(1.0, math.inf, 0)
    with pytest.raises(DivergedError):
        guard.check(math.inf, 1.0, 0)


def test_without_memory_the_state_is_saved_and_the_flags_that_help_give_the_same_weights(
    quick_run, tmp_path, monkeypatch, capsys
):
    assert train.main([*quick_run, *FAST, "--run", str(tmp_path / "complete"), "--freeze", "none", "--dropout", "0",
                       "--drop-path", "0"]) == 0  # fmt: skip

    def fail(_: train.Trainer) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        run_with(patch, 5, fail)
        assert train.main([*quick_run, *FAST, "--freeze", "none", "--dropout", "0", "--drop-path", "0"]) == 1
    error = capsys.readouterr().err
    assert "out of memory in step 6 with 4 images; the state after step 5 is saved" in error
    assert "--accumulate 2" in error
    assert "Tried to allocate 2 GiB" in error
    assert "and more" not in error
    assert load_state(run).progress.step == 5
    assert train.main(["--run", str(run), "--resume", "--accumulate", "2", "--gradient-checkpointing"]) == 0
    assert steps_of(run) == list(range(1, 13))
    one, two = (state_tensors(folder) for folder in (tmp_path / "complete", run))
    for name in ("decoder.layers.0.mlp.0.weight", "encoder.vit.blocks.0.mlp.fc1.weight"):
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0)


def test_a_full_disk_loses_no_state_and_a_later_save_succeeds(quick_run, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    full = run / "state.pt.partial"

    def fill(_: train.Trainer) -> None:
        full.symlink_to("/dev/full")  # every byte that is written there fails as on a full disk

    def free(trainer: train.Trainer) -> None:
        full.unlink()
        assert load_state(run).progress.step == 2, "the state from before is whole"
        assert trainer.saves.writer.written_step == 2

    original = train.Trainer.step

    def step(trainer: train.Trainer, loaded: LoadedStep) -> dict[str, float]:
        if trainer.progress.step == 3:
            trainer.saves.writer.finish()
            fill(trainer)
        if trainer.progress.step == 7:
            free(trainer)
        return original(trainer, loaded)

    monkeypatch.setattr(train.Trainer, "step", step)
    assert train.main([*quick_run, *FAST, "--save-steps", "2", "--eval-epochs", "4"]) == 0
    output = capsys.readouterr().out
    assert "a state could not be written (No space left on device)" in output
    assert f"{run} has that of step 2" in output
    assert load_state(run).progress.step == 12


def test_a_disk_that_stays_full_ends_with_status_1_and_a_message(quick_run, tmp_path, monkeypatch, capsys):
    run_with(monkeypatch, 11, lambda _: (tmp_path / "run/state.pt.partial").symlink_to("/dev/full"))
    assert train.main([*quick_run, *FAST, "--eval-epochs", "4"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run/last").config.decoder.num_layers == 2, "the weights are there"


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_and_the_run_ends_with_the_same_weights(quick_run, tmp_path):
    """One rank of two ends by SIGKILL in the middle of an epoch; torchrun starts all again, and the run goes on."""
    script = tmp_path / "killed_once.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train\n"
        "original = train.Trainer.step\n"
        "def step(trainer, loaded):\n"
        f"    mark = {str(tmp_path / 'killed')!r}\n"
        "    if trainer.ranks.rank == 1 and trainer.progress.step == 7 and not os.path.exists(mark):\n"
        "        open(mark, 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(trainer, loaded)\n"
        "train.Trainer.step = step\n"
        "sys.exit(train.main())\n"
    )
    flags = [*quick_run, *FAST, "--save-steps", "2", "--freeze", "none"]
    for name, program in (("complete", str(ROOT / "train.py")), ("killed", str(script))):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2", "--standalone"]
        result = subprocess.run(
            [*command, "--", program, *flags, "--run", str(tmp_path / "runs" / name)],
            capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "killed").exists()
    for part in ("network", "average"):
        states = [state_tensors(tmp_path / "runs" / name, part) for name in ("complete", "killed")]
        assert largest_difference(*states) == 0
    assert steps_of(tmp_path / "runs/killed") == list(range(1, 13))


def test_a_signal_to_the_workers_too_ends_a_run_after_its_step(quick_run, tmp_path):
    """torchrun sends SIGTERM to the whole group of a rank."""
    flags = [*quick_run, *FAST, "--freeze", "none", "--workers", "2"]
    assert run_ranks(flags, killed_at=4, number=signal.SIGTERM) == [128 + signal.SIGTERM]
    assert load_state(tmp_path / "run").progress.step == 5
    assert run_ranks(["--run", str(tmp_path / "run"), "--resume"]) == [0]
    assert steps_of(tmp_path / "run") == list(range(1, 13))


@pytest.mark.parametrize("failure", ["signal in the last step", "no memory in the last validation"])
def test_the_last_validation_is_not_lost(quick_run, tmp_path, monkeypatch, failure):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        if failure == "signal in the last step":
            run_with(patch, 11, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        else:
            original = train.Trainer.validate

            def validate(trainer: train.Trainer) -> None:
                if trainer.progress.step == 12:
                    raise MemoryError
                original(trainer)

            patch.setattr(train.Trainer, "validate", validate)
        assert train.main([*quick_run, *FAST]) in (1, 128 + signal.SIGTERM)
    assert not load_state(run).progress.is_finished
    assert [row["step"] for row in lines_of(run) if "validation" in row] == [0, 3, 6, 9]
    assert train.main(["--run", str(run), "--resume", "--epochs", "4"]) == 0, "as torchrun repeats it, with its length"
    assert [row["step"] for row in lines_of(run) if "validation" in row] == [0, 3, 6, 9, 12]
    assert "12 steps" in (run / "last/README.md").read_text()


def test_without_memory_for_the_first_update_no_state_is_promised(quick_run, tmp_path, monkeypatch, capsys):
    def fail(_: object, __: object = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    assert train.main([*quick_run, *FAST]) == 1
    assert "no state has been saved yet. Start again and one of: --accumulate 2" in capsys.readouterr().err
    assert not (tmp_path / "run/state.pt").exists()


def test_a_checkpoint_that_cannot_be_written_is_written_when_the_run_is_resumed(quick_run, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".last.partial").write_text("a file instead of a folder")
    assert train.main([*quick_run, *FAST]) == 1
    assert f"{run / 'last'} could not be written" in capsys.readouterr().err
    assert steps_of(run) == list(range(1, 13)), "all steps are done"
    (run / ".last.partial").unlink()
    assert train.main(["--run", str(run), "--resume"]) == 0
    assert "12 steps" in (run / "last/README.md").read_text()


def test_shards_that_cannot_be_written_are_a_warning_on_every_rank(quick_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".state.partial").write_text("a file instead of a folder")
    flags = [*quick_run, *FAST, "--fsdp", "--freeze", "none", "--max-steps", "3", "--save-steps", "2"]
    assert run_ranks(flags, 2) == [1, 1], "no state at the end"
    assert steps_of(run) == [1, 2, 3]
    assert (run / "last/config.json").exists()


def alarm(captions: list[str], **values: object) -> str:
    images = {str(number): text for number, text in enumerate(captions)}
    scores = score_captions(images, {image: ["a dog"] for image in images}, resamples=0)
    return collapse_alarm(TrainConfig(data=("x",), run="r", **values), images, scores)  # type: ignore[arg-type]


def test_one_caption_for_nearly_all_images_is_an_alarm_that_names_the_remedy():
    common = ["a man"] * 15 + [f"a dog number {number}" for number in range(10)]
    text = alarm(common)
    assert "15 of 25 images have the caption 'a man'" in text
    assert "start from a checkpoint (--init model/default); lower --lr (it is 0.0006)" in text
    assert "--init model/default" not in alarm(common, init="x", freeze="encoder")
    assert "train more than the decoder (--freeze none)" in alarm(common, init="x", freeze="encoder")
    assert "leave out --shuffle-images" in alarm(common, shuffle_images=True)
    assert "30 of 30 images" in alarm(["a man"] * 30)
    assert not alarm([f"a dog number {number}" for number in range(25)])
    assert not alarm(["a man"])


def test_a_run_describes_itself(quick_run, tmp_path):
    assert train.main([*quick_run, "--max-steps", "1", "--seed", "4"]) == 0
    document = json.loads((tmp_path / "run/run.json").read_text())
    assert document["settings"]["seed"] == 4
    assert document["settings"]["lr"] == 1e-4, "the values that are used, not the zeros that stand for them"
    assert len(document["code"]["commit"]) == 40
    assert (
        document["libraries"]["torch"] == torch.__version__.partition("+")[0]
        or document["libraries"]["torch"] == torch.__version__
    )


def test_the_progress_bar_shows_rate_memory_waiting_and_the_time_that_is_left():
    progress = Progress()
    for _ in range(10):
        progress.count_step(30.0, 2.0)
    text = bar_text(progress, {"data_wait": 15.0, "memory": 2.5e9}, 60, 210)
    assert text == "loss 2.000, 2 images/s, 50 % waiting for data, 2.5 GB, 1 h 40 min left"
    assert "waiting" not in bar_text(progress, {"data_wait": 0.1, "memory": 0}, 60, 210)
    assert 50e6 < memory_used(torch.device("cpu")) < 1e12


def test_tensorboard_shows_captions_with_their_maps(quick_run, tmp_path):
    assert train.main([*quick_run, "--max-steps", "1", "--sample-images", "1"]) == 0
    curves = b"".join(path.read_bytes() for path in (tmp_path / "run/curves").iterdir())
    assert b"maps/" in curves
    assert b"\x89PNG" in curves
