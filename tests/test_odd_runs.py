"""Runs of beginners and interrupted runs: few images, files that cannot be used, changed flags, changed data, damaged states."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from corpus import CaptionDataset, CaptionedImage, identical_groups, open_dataset
from evaluation.__main__ import main as evaluate
from model import CaptionNetwork, CaptionTokenizer, GenerationOptions, MapConfig, load_checkpoint, save_checkpoint
from tests.conftest import redraw, tiny_config
from training import (
    Batch,
    FrozenPart,
    Judgement,
    Progress,
    Source,
    TrainConfig,
    average_of,
    closing_text,
    count_steps,
    load_state,
    new_run,
    open_sources,
    parse_arguments,
    read_log,
    resolve_length,
)
from training.resume import CHANGEABLE, resumed_config
from training.split import hold_out

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


@pytest.fixture
def data(tmp_path) -> Path:
    return write_images(tmp_path / "data", 12)


@pytest.fixture
def start(tmp_path, tokenizer) -> Path:
    return write_start(tmp_path / "start", tokenizer)


@pytest.fixture
def run(data, start, tmp_path) -> list[str]:
    return command(data, start, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer) -> Path:
    """The folder of a finished run, which tests do not change."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = command(write_images(folder / "data", 12), write_start(folder / "start", tokenizer), folder / "run")
    assert train.main(arguments) == 0
    return folder / "run"


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
        def step(self, batch: Batch) -> float:
            if self.progress.step == step:
                raise StoppedError
            return super().step(batch)

    beginning = new_run(parse_arguments(arguments), {})
    assert not isinstance(beginning, int)
    Path(beginning.config.run).mkdir()
    trainer = StoppingTrainer(beginning)
    trainer.prepare()
    with pytest.raises(StoppedError):
        trainer.train()


# Before the run starts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_new_network_on_few_images_is_refused_with_the_command_that_would_do_better(data, tmp_path, capsys, language):
    arguments = [*QUICK, "--data", str(data), "--run", str(tmp_path / "run"), "--language", language, "--hidden-size", "24"]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert "12 images are too few to train a new network" in error
    assert "--from-scratch" in error
    line = next(line for line in error.splitlines() if line.startswith("    python train.py"))
    better = parse_arguments(shlex.split(line)[2:])
    assert better == dataclasses.replace(parse_arguments([*arguments[:-2]]), init=better.init), "all other flags are kept"
    assert load_checkpoint(Path(better.init)), "it exists"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("captions", "flags", "message"),
    [
        ("a dog number {}", ["--epochs", "1"], "3 steps are few: a checkpoint needs at least 60; use --epochs 20"),
        ("a dog number {}", ["--max-steps", "7"], "7 steps are few"),
        (
            "a dog number {}",
            ["--val-share", "0"],
            "no validation images: RUN/best will be the last weights; leave out --val-share 0",
        ),
        ("a dog number {}", ["--eval-images", "0"], "no validation images"),
        ("a dog number {}", [], "has only 2 validation images"),
        ("a dog number {}", [], "has one caption per image"),
        ("a dog number {}", ["--warmup-ratio", "0.9"], "rises during 90% of the steps"),
        ("a dog", [], "10 of 10 images have the caption 'a dog'; check the column"),
        ("IMG_{}.jpg", [], "look like file names; check the column"),
        ("20240{}", [], "look like file names; check the column"),
    ],
)
def test_what_will_probably_go_wrong_is_printed_before_the_run_starts(tmp_path, start, capsys, captions, flags, message):
    data = write_images(tmp_path / "data", 12, captions)
    arguments = [*QUICK, "--data", str(data), "--run", str(tmp_path / "run"), "--init", str(start), "--dry-run", *flags]
    assert train.main(arguments) == 0
    output = capsys.readouterr().out
    assert any(line.startswith("WARNING: ") and message in line for line in output.splitlines()), output
    assert output.index(message) < output.index("a step takes")


@pytest.mark.parametrize(
    ("images", "flags", "epochs", "steps", "lr"),
    [
        (12, ["--init", "x"], 20, 60, 1e-4),  # three batches per epoch
        (12, [], 334, 1_002, 6e-4),
        (1_000, ["--init", "x"], 8, 2_000, 1e-4),
        (12, ["--init", "x", "--max-steps", "7"], 3, 7, 1e-4),
        (12, ["--epochs", "2", "--lr", "0"], 2, 6, 0.0),
        (12, ["--epochs", "2", "--max-steps", "700", "--lr", "0.5"], 2, 6, 0.5),
    ],
)
def test_small_data_has_more_epochs_unless_the_command_line_says_how_many(images, flags, epochs, steps, lr):
    source = source_of(images)
    config = resolve_length(parse_arguments(["--run", "y", "--data", "scenes", "--batch-size", "4", *flags]), [source])
    assert (config.epochs, count_steps(config, [source]), config.lr) == (epochs, steps, lr)
    assert config.eval_epochs == max(1, epochs // 10)


def test_what_init_keeps_and_what_not_is_printed_and_written_on_the_card(run, tmp_path, capsys):
    assert train.main([*run, "--max-steps", "1"]) == 0
    kept = "2 map heads (geometric mean), decoding defaults (num_beams 5, length_penalty 0.5), languages en"
    lost = "not kept: pointing 0.75, measured with other weights"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"from {tmp_path / 'start'}: kept")]
    assert kept in line
    assert lost in line
    assert load_checkpoint(tmp_path / "run/last").config.generation.num_beams == 5
    card = (tmp_path / "run/last/README.md").read_text()
    assert kept in card
    assert lost in card


# Validation images


@pytest.mark.parametrize(
    ("count", "share", "maximum", "expected"),
    [
        (40, 0.05, 400, 8),
        (12, 0.05, 400, 2),
        (300, 0.05, 400, 15),
        (300, 0.05, 10, 10),
        (300, 0.5, 400, 150),
        (40, 0.0, 400, 0),
        (40, 0.05, 0, 0),
        (4, 0.05, 400, 0),
        (3, 0.99, 400, 2),
        (1, 0.99, 400, 0),
    ],
)
def test_a_share_of_the_images_is_held_out_by_id_and_seed(count, share, maximum, expected):
    entries = source_of(count).train
    kept, held_out = hold_out(entries, share, 0, maximum)
    assert len(held_out) == expected
    assert sorted([*kept, *held_out], key=lambda entry: int(entry.image_id)) == entries
    shuffled = random.Random(1).sample(entries, count)
    ids = {entry.image_id for entry in held_out}
    assert {entry.image_id for entry in hold_out(shuffled, share, 0, maximum)[1]} == ids, "the order does not matter"
    if expected in (8, 15, 150):
        assert {entry.image_id for entry in hold_out(entries, share, 1, maximum)[1]} != ids


def test_identical_image_files_are_on_one_side_of_the_split(tmp_path):
    csv = write_images(tmp_path / "data", 40)
    for number in range(20, 40):
        (csv.parent / f"{number}.png").write_bytes((csv.parent / f"{number - 20}.png").read_bytes())
    entries = open_dataset(str(csv)).split("train")
    groups = [[entry.image_id for entry in group] for group in identical_groups(entries)]
    assert groups == [[str(number), str(number + 20)] for number in range(20)]
    for seed in range(5):
        kept, held_out = (hold_out(entries, 0.05, seed, 400)[side] for side in (0, 1))
        assert len(held_out) == 8
        assert {int(entry.image_id) % 20 for entry in kept}.isdisjoint({int(entry.image_id) % 20 for entry in held_out})


def test_held_out_images_are_reported_validated_on_and_scored_by_the_evaluation(run, data, tmp_path, capsys):
    assert train.main(run) == 0
    output = capsys.readouterr().out
    assert "has no val split: 2 of its 12 images are held out for validation" in output
    ids = (tmp_path / "run/validation_ids.txt").read_text().split()
    written = json.loads((tmp_path / "run/validation_captions.json").read_text())
    assert sorted(row["image_id"] for row in written) == sorted(ids)
    assert len(ids) == 2

    evaluation = next(line for line in output.splitlines() if "python -m evaluation captions" in line).split(
        "python -m evaluation "
    )[1]
    assert evaluate([*shlex.split(evaluation), "--num-beams", "1", "--json", "--dtype", "float32"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["systems"]["greedy"]["images"] == 2
    (tmp_path / "ids.txt").write_text("0\nanother\n")
    words = shlex.split(evaluation)
    words[words.index("--validation-ids") + 1] = str(tmp_path / "ids.txt")
    assert evaluate(words) == 1
    assert "lacks 1 images" in capsys.readouterr().err


def test_data_with_a_val_split_keeps_it(data, tmp_path):
    lines = data.read_text().splitlines()
    splits = ["split", *["val"] * 3, *["train"] * 9]
    data.write_text("\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True)))
    (source,) = open_sources(TrainConfig(data=(str(data),), run="x"))
    assert source.held_out == ()
    assert [entry.image_id for entry in source.validation] == ["0", "1", "2"]


# Files that cannot be used


@pytest.mark.parametrize(
    ("damage", "check_says", "left_out"),
    [
        ("missing", "missing images: 1", "line 5"),
        ("broken", "broken images: 1", "line 5"),
        ("record", "unreadable records: 1", "line 5"),
    ],
)
def test_records_that_cannot_be_used_stop_a_checked_run_and_are_left_out_without_the_check(
    run, data, tmp_path, capsys, damage, check_says, left_out
):
    image = data.parent / "3.png"
    if damage == "missing":
        image.unlink()
    elif damage == "broken":
        image.write_bytes(image.read_bytes()[:40])
    else:
        data.write_text(data.read_text().replace("3.png,", "3.png,one,too,many,"))
    assert train.main(run) == 1
    captured = capsys.readouterr()
    assert check_says in captured.out
    assert left_out in captured.out
    again = next(line for line in captured.err.splitlines() if line.startswith("    python train.py"))
    assert not (tmp_path / "run").exists()

    assert train.main([*shlex.split(again)[2:], "--max-steps", "2"]) == 0, "the advice works"
    output = capsys.readouterr().out
    assert "1 record cannot be used, left out:" in output
    assert left_out in output
    state = load_state(tmp_path / "run").sources[0]
    assert state["left_out"] == ([] if damage == "record" else ["3"])
    assert "2 of its 11 images are held out" in output
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--epochs", "2"]) == 0, "it leaves out the same"


def test_data_without_any_usable_image_is_an_error(run, data, tmp_path, capsys):
    for path in data.parent.glob("*.png"):
        path.unlink()
    assert train.main([*run, "--no-check"]) == 1
    error = capsys.readouterr().err
    assert "has no usable image to train on; 12 records cannot be used" in error
    assert "0.png" in error
    assert not (tmp_path / "run").exists()


def test_an_image_that_disappears_during_a_run_is_named(run, data, tmp_path, capsys):
    arguments = [*run, "--freeze", "none", "--val-share", "0"]
    beginning = new_run(parse_arguments(arguments), {})
    (data.parent / "7.png").unlink()
    (tmp_path / "run").mkdir()
    trainer = train.Trainer(beginning)
    trainer.prepare()
    with pytest.raises(Exception, match=r"line 9.*7\.png"):
        trainer.train()


# Resuming


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_a_killed_run_ends_with_the_weights_and_the_log_of_an_uninterrupted_one(run, tmp_path, freeze):
    arguments = [*run, "--epochs", "3", "--save-steps", "2", "--freeze", freeze]
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
        row.pop("images_per_second", None)
    assert rows[0] == rows[1]


def steps_of_raw(folder: Path) -> list[int]:
    return [row["step"] for row in read_log(folder / "log.jsonl") if "loss" in row]


def test_the_log_has_a_row_for_each_step_and_each_validation(run, tmp_path):
    assert train.main(run) == 0
    rows = lines_of(tmp_path / "run")
    steps = [row for row in rows if "loss" in row]
    scores = [row for row in rows if "validation" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in steps] == [1, 1, 1, 2, 2, 2]
    assert all(row.keys() == {"step", "epoch", "elapsed", "loss", "lr", "images_per_second"} for row in steps)
    assert [row["elapsed"] for row in steps] == sorted(row["elapsed"] for row in steps)
    assert [row["step"] for row in scores] == [0, 3, 6], "the checkpoint of --init is validated first"
    assert all({"CIDEr", "BLEU-4", "ROUGE-L", "distinct", "images"} <= row.keys() for row in scores)
    curves = b"".join(path.read_bytes() for path in (tmp_path / "run/curves").iterdir())
    assert {tag for tag in (b"train/loss", b"train/lr", b"validation/captions.csv/CIDEr") if tag in curves} == {
        b"train/loss", b"train/lr", b"validation/captions.csv/CIDEr",
    }  # fmt: skip


def test_frozen_weights_are_not_in_the_state(run, start, tmp_path):
    assert train.main(run) == 0
    parts = load_state(tmp_path / "run").parts
    names = set(load_checkpoint(start).network.state_dict())
    for part in ("network", "average"):
        assert set(parts[part]) == {name for name in names if not name.startswith("encoder.")}


def test_the_average_shares_the_frozen_module_and_nothing_else(tiny_network):
    average = average_of(tiny_network, FrozenPart("encoder"))
    assert average.encoder is tiny_network.encoder
    assert average.decoder is not tiny_network.decoder
    assert average_of(tiny_network, FrozenPart("none")).encoder is not tiny_network.encoder


def test_random_frozen_weights_are_kept_in_the_state(data, tmp_path):
    network = ["--stem", "", "--patch-size", "56", "--hidden-size", "24", "--num-heads", "2", "--encoder-layers", "1"]
    network += ["--decoder-layers", "1", "--vocab-size", "300", "--freeze", "encoder", "--from-scratch"]
    arguments = [*QUICK, "--data", str(data), "--run", str(tmp_path / "run"), *network, "--max-steps", "1"]
    assert train.main(arguments) == 0
    assert any(name.startswith("encoder.") for name in load_state(tmp_path / "run").parts["network"])
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--max-steps", "2"]) == 0


@pytest.mark.parametrize(
    ("flags", "total", "epochs"),
    [(["--epochs", "4"], 12, 4), (["--max-steps", "7"], 7, 3), (["--epochs", "5", "--max-steps", "8"], 8, 5)],
)
def test_a_finished_run_goes_on_to_the_number_that_resume_names(run, tmp_path, capsys, flags, total, epochs):
    assert train.main([*run, "--max-steps", "4"]) == 0
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
    values |= {"save_steps": 7, "device": "cpu", "dtype": "float32", "threads": 2, "from_scratch": True}
    assert values.keys() == CHANGEABLE
    resumed = dataclasses.asdict(resumed_config(settings, values))
    assert resumed == settings | values


def test_the_command_line_of_a_run_with_resume_added_is_accepted(run, capsys):
    assert train.main(run) == 0
    assert train.main([*run, "--resume"]) == 0
    assert "as many as these flags say; nothing to do" in capsys.readouterr().out


def test_a_state_of_an_older_version_is_read(run, start, tmp_path):
    arguments = [*run, "--val-share", "0"]
    assert train.main(arguments) == 0
    path = tmp_path / "run/state.pt"
    document = torch.load(path, weights_only=True)
    frozen = {name: value for name, value in load_checkpoint(start).network.state_dict().items() if name.startswith("encoder.")}
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
def test_a_run_that_cannot_be_resumed_says_why(run, data, start, tmp_path, capsys, change, message):
    assert train.main([*run, "--max-steps", "1"]) == 0
    state = tmp_path / "run/state.pt"
    if change == "state cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif change == "state of something else":
        torch.save({"weights": torch.zeros(2)}, state)
    elif change == "empty state":
        state.write_bytes(b"")
    elif change == "image added":
        Image.new("RGB", (20, 16)).save(data.parent / "new.png")
        data.write_text(data.read_text() + "new.png,a cat\n")
    elif change == "caption changed":
        data.write_text(data.read_text().replace("dog number 4", "cat number 4"))
    elif change == "encoder of --init changed":
        checkpoint = load_checkpoint(start)
        redraw(checkpoint.network.encoder, 4)
        save_checkpoint(start, checkpoint.config, checkpoint.network.state_dict(), checkpoint.tokenizer, "# Card")
    else:
        start.rename(tmp_path / "moved")
    before = state.read_bytes()
    capsys.readouterr()
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--epochs", "2"]) == 1
    assert message in capsys.readouterr().err
    assert state.read_bytes() == before


# The last lines


def test_the_last_lines_name_the_weights_and_the_next_commands(run, tmp_path, capsys):
    assert train.main(run) == 0
    closing = capsys.readouterr().out.split("6 steps in ")[1]
    best = tmp_path / "run/best"
    assert f"python -m model caption IMAGE --checkpoint {best}" in closing
    assert f"python -m service --checkpoint {best}" in closing
    is_late = "the weights of step 5" in closing or "the weights of step 6" in closing  # then a longer run may be better
    assert (f"python train.py --run {tmp_path / 'run'} --resume --epochs 4" in closing) == is_late
    assert "before training" in closing
    assert "one caption for all images reaches" in closing


@pytest.mark.parametrize(
    ("captions", "cider", "constant", "references", "message"),
    [
        (["a a a", "a a a"], 0.0, 0.2, ["a dog", "a cat"], "NOT USABLE: it writes one caption for all images, 'a a a'"),
        (["a a a", "a a a"], None, 0.0, ["a dog", "a cat"], "NOT USABLE: it writes one caption for all images, 'a a a'"),
        (["a bus", "a tree"], 0.1, 0.2, ["a dog", "a cat"], "NOT USABLE: its captions are worse than the best single caption"),
        (["a dog", "a cat"], 0.9, 0.2, ["a dog", "a cat"], ""),
        (["a dog", "a cat"], None, 0.0, ["a dog", "a cat"], ""),
        (["a wall", "a wall"], 0.0, 0.0, ["a wall", "a wall"], ""),  # the data has one caption
        (["a dog"], 0.3, 0.2, ["a dog"], ""),
    ],
)
def test_a_model_that_cannot_be_used_is_called_so(captions, cider, constant, references, message):
    judgement = Judgement(
        {str(number): text for number, text in enumerate(captions)},
        {str(number): [text] for number, text in enumerate(references)},
        cider,
        constant,
    )
    config = TrainConfig(data=("a.csv",), run="x", epochs=3)
    text = closing_text(config, Progress(step=9), source_of(4), judgement)
    assert ("NOT USABLE" in text) == bool(message)
    assert message in text
    assert ("What would help" in text) == bool(message)


def test_a_run_whose_captions_are_all_the_same_says_so_with_and_without_validation_images(data, tmp_path, capsys):
    network = ["--stem", "", "--patch-size", "56", "--hidden-size", "24", "--num-heads", "2", "--encoder-layers", "1"]
    network += ["--decoder-layers", "1", "--vocab-size", "300", "--from-scratch", "--lr", "0", "--image-size", "56"]
    for number, share in enumerate(("0.2", "0")):
        arguments = [*QUICK, "--data", str(data), "--run", str(tmp_path / str(number)), *network, "--val-share", share]
        assert train.main([*arguments, "--max-steps", "1"]) == 0
        assert "NOT USABLE: it writes one caption for all images" in capsys.readouterr().out
