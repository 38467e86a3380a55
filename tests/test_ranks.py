"""Several ranks: equal to one, killed and resumed, sharded, and on another number of ranks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

import train
from model import Captioner, ConfigError, load_checkpoint
from service import Settings, create_app
from tests.processes import KILLED, largest_difference, run_ranks, state_tensors
from tests.runs import QUICK, write_images, write_start
from training import Ranks, check_parallel, load_state, parse_arguments, read_log

STEPS = 12


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tokenizer) -> list[str]:
    """The flags of a run of 12 steps, 4 epochs, that trains everything from pixels; without dropout ranks draw nothing."""
    folder = tmp_path_factory.mktemp("exact")
    data, start = write_images(folder / "data", 12), write_start(folder / "start", tokenizer)
    flags = [*QUICK, "--data", str(data), "--init", str(start), "--epochs", "4", "--freeze", "none", "--lr", "1e-3"]
    return [*flags, "--dropout", "0", "--drop-path", "0", "--sample-images", "0", "--val-share", "0.1"]


@pytest.fixture(scope="module")
def complete(tmp_path_factory, exact) -> dict[int, Path]:
    """Folders of uninterrupted runs on one rank and on two."""
    folder = tmp_path_factory.mktemp("complete")
    for count in (1, 2):
        assert run_ranks([*exact, "--run", str(folder / str(count))], count) == [0] * count
    return {count: folder / str(count) for count in (1, 2)}


def assert_equal_runs(one: Path, two: Path) -> None:
    """The states and the checkpoints of two runs are bit-equal."""
    for part in ("network", "average"):
        assert largest_difference(state_tensors(one, part), state_tensors(two, part)) == 0
    for name in ("best", "last"):
        weights = [load_checkpoint(run / name).network.state_dict() for run in (one, two)]
        assert largest_difference(*weights) == 0


def almost_equal(one: Path, two: Path, part: str = "network") -> bool:
    """Return whether the states of two runs are equal but for rounding.

    The biases of keys are left out. Softmax does not depend on them: their gradient is a rounding error, which Adam scales to the
    size of the learning rate.
    """
    parts = [
        {name: value for name, value in state_tensors(run, part).items() if not name.endswith(("key.bias", "qkv.bias"))}
        for run in (one, two)
    ]
    size = state_tensors(one, part)["encoder.vit.blocks.0.attn.qkv.bias"].numel() // 3
    for run, tensors in zip((one, two), parts, strict=True):
        bias = state_tensors(run, part)["encoder.vit.blocks.0.attn.qkv.bias"]
        tensors["query and value"] = torch.cat([bias[:size], bias[2 * size :]])
    return largest_difference(*parts) < 1e-5


def test_two_ranks_train_as_one_does_with_the_same_images_per_step(complete):
    for part in ("network", "average"):
        assert almost_equal(complete[1], complete[2], part)
    logs = [read_log(complete[count] / "log.jsonl") for count in (1, 2)]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for one, two in zip(*logs, strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-5), "the loss is that of all ranks' tokens"
            assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
    assert json.loads((complete[2] / "run.json").read_text())["ranks"] == 2
    assert load_checkpoint(complete[2] / "best").network.training is False


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_is_killed_at_ten_steps_ends_with_bit_equal_weights(complete, exact, tmp_path, count):
    rng, run = random.Random(count), tmp_path / "run"
    arguments = [*exact, "--run", str(run), "--save-steps", "1"]
    steps = sorted(rng.sample(range(1, STEPS), 10))
    for step in steps:  # before its first state is complete, a run starts again
        resume = ["--run", str(run), "--resume"] if (run / "state.pt").exists() else arguments
        statuses = run_ranks(resume, count, killed_at=step, killed_rank=rng.randrange(count))
        assert KILLED in statuses
    assert run_ranks(["--run", str(run), "--resume"], count) == [0] * count
    assert_equal_runs(complete[count], run)
    assert [row["step"] for row in read_log(run / "log.jsonl") if "loss" in row] == list(range(1, STEPS + 1)), "each step once"


def test_a_run_goes_on_with_another_number_of_ranks(complete, exact, tmp_path):
    run = tmp_path / "run"
    statuses = run_ranks([*exact, "--run", str(run), "--save-steps", "2"], 2, killed_at=5, killed_rank=1)
    assert statuses[1] == KILLED
    assert run_ranks(["--run", str(run), "--resume"], 1) == [0]
    assert almost_equal(complete[1], run)


def test_shards_of_two_ranks_are_a_checkpoint_and_a_state_that_one_rank_continues(exact, tmp_path, photo):
    run = tmp_path / "run"
    arguments = [*exact, "--run", str(run), "--fsdp", "--save-steps", "3"]
    assert run_ranks([*arguments, "--max-steps", "7"], 2) == [0, 0]
    assert {path.name for path in (run / "state").iterdir()} >= {"__0_0.distcp", "__1_0.distcp", ".metadata", "run.pt"}
    assert not (run / "state.pt").exists()
    captioner = Captioner.load(run / "last")
    with TestClient(create_app({"sharded": captioner}, Settings())) as client:
        response = client.post("/v1/captions", content=photo(), headers={"content-type": "image/png"})
    assert response.status_code == 200, "it is served as any other checkpoint"
    longer = ["--run", str(run), "--resume", "--epochs", "4"]
    assert run_ranks([*longer, "--no-fsdp"], 1) == [0]
    assert not (run / "state").exists(), "the state is a file again"
    other = tmp_path / "other"
    assert run_ranks([*exact, "--run", str(other), "--max-steps", "7"], 1) == [0]
    assert run_ranks(["--run", str(other), "--resume", "--epochs", "4"], 1) == [0]
    assert almost_equal(other, run)
    assert run_ranks(["--run", str(run), "--resume", "--epochs", "5", "--fsdp"], 2) == [0, 0], "and a folder again"
    assert (run / "state/.metadata").exists()
    assert not (run / "state.pt").exists()


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_continues_from_its_last_complete_state(exact, tmp_path):
    runs = {}
    for name in ("complete", "killed"):
        runs[name] = tmp_path / name
        arguments = [*exact, "--run", str(runs[name]), "--fsdp", "--save-steps", "2"]
        if name == "killed":
            assert KILLED in run_ranks(arguments, 2, killed_at=7, killed_rank=1)
            arguments = ["--run", str(runs[name]), "--resume"]
        assert run_ranks(arguments, 2) == [0, 0]
    weights = [load_checkpoint(run / "last").network.state_dict() for run in runs.values()]
    assert largest_difference(*weights) == 0


def test_parts_of_a_step_give_the_result_of_the_whole(complete, exact, tmp_path):
    arguments = [*exact, "--run", str(tmp_path / "run"), "--accumulate", "3", "--gradient-checkpointing"]
    assert train.main(arguments) == 0
    assert almost_equal(complete[1], tmp_path / "run")


def test_a_rank_without_an_image_of_its_own_changes_no_sum(exact, tmp_path):
    arguments = ["--batch-size", "9", "--epochs", "1"]  # the last step has one image
    runs = [tmp_path / str(count) for count in (1, 3)]
    for run, count in zip(runs, (1, 3), strict=True):
        assert run_ranks([*exact, *arguments, "--run", str(run)], count) == [0] * count
    assert almost_equal(*runs)


@pytest.mark.parametrize(
    ("flags", "count", "message"),
    [
        (["--fsdp"], 1, "--fsdp shards the weights over several ranks"),
        (["--batch-size", "3"], 4, "--batch-size 3 has no image for each of 4 ranks and 1 parts; use at least 4"),
        (["--batch-size", "3", "--accumulate", "4"], 1, "use at least 4"),
    ],
)
def test_flags_that_do_not_fit_the_ranks_are_refused(flags, count, message):
    with pytest.raises(ConfigError, match=message):
        check_parallel(parse_arguments(["--run", "x", "--data", "scenes", *flags]), Ranks(0, count))


def test_every_rank_needs_a_gpu_of_its_own(monkeypatch):
    assert Ranks().device("cuda:1") == "cuda:1", "one rank takes any"
    assert Ranks(1, 2, 1).device("auto") == "cpu", "there is no GPU here"
    assert Ranks(1, 2, 1).device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="is one GPU for 2 ranks; use --device cuda"):
        Ranks(1, 2, 1).device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Ranks(3, 4, 1).device("auto") == "cuda:1", "the number on its own machine"
    with pytest.raises(ConfigError, match="has no GPU of its own: this machine has 2; use --nproc-per-node 2"):
        Ranks(2, 3, 2).device("auto")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["--fsdp", "--no-fsdp"])
@pytest.mark.parametrize(
    "recipe",
    [
        ["--text-epochs", "1", "--frozen-epochs", "1", "--captions-per-image", "1"],
        ["--lora-rank", "4", "--gradient-checkpointing"],
        ["--freeze", "encoder", "--accumulate", "2"],
        ["--word-presence-weight", "0.1", "--label-smoothing", "0"],
    ],
    ids=["stages", "LoRA", "frozen encoder", "word presence"],
)
def test_recipes_on_two_ranks_give_the_weights_of_one(exact, tmp_path, engine, recipe):
    runs = {count: tmp_path / str(count) for count in (1, 2)}
    for count, run in runs.items():
        flags = [*exact, *recipe, "--run", str(run), *([engine] if count == 2 else [])]
        assert run_ranks(flags, count) == [0] * count
    one, two = (load_state(run) for run in runs.values())
    for part in ("network", "average", "heads"):
        own = {name: value for name, value in one.parts[part].items() if not name.endswith(("key.bias", "qkv.bias"))}
        if own:
            assert largest_difference(own, {name: two.parts[part][name] for name in own}) < 2e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
def test_a_compiled_run_gives_the_weights_of_another_and_resumes(complete, exact, tmp_path):
    run = tmp_path / "run"
    assert run_ranks([*exact, "--run", str(run), "--compile", "--max-steps", "12"]) == [0]
    assert almost_equal(complete[1], run)
