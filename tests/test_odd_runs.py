"""Runs of beginners: few images, no validation images, files that cannot be used, and what the last lines say."""

from __future__ import annotations

import dataclasses
import json
import random
import shlex
from pathlib import Path

import pytest

import train
from corpus import identical_groups, open_dataset
from evaluation.__main__ import main as evaluate
from model import load_checkpoint
from tests.runs import QUICK, source_of, write_images
from training import (
    Judgement,
    Progress,
    TrainConfig,
    closing_text,
    count_steps,
    load_state,
    new_run,
    open_sources,
    parse_arguments,
    resolve_length,
)
from training.split import hold_out

# Before the run starts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_new_network_on_few_images_is_refused_with_the_command_that_would_do_better(quick_data, tmp_path, capsys, language):
    arguments = [*QUICK, "--data", str(quick_data), "--run", str(tmp_path / "run"), "--language", language, "--hidden-size", "24"]
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
def test_what_will_probably_go_wrong_is_printed_before_the_run_starts(tmp_path, quick_start, capsys, captions, flags, message):
    data = write_images(tmp_path / "data", 12, captions)
    arguments = [*QUICK, "--data", str(data), "--run", str(tmp_path / "run"), "--init", str(quick_start), "--dry-run", *flags]
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


def test_what_init_keeps_and_what_not_is_printed_and_written_on_the_card(quick_run, tmp_path, capsys):
    assert train.main([*quick_run, "--max-steps", "1"]) == 0
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


def test_held_out_images_are_reported_validated_on_and_scored_by_the_evaluation(quick_run, quick_data, tmp_path, capsys):
    assert train.main(quick_run) == 0
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
    unused = next(name for name in map(str, range(12)) if name not in ids)
    (tmp_path / f"data/{unused}.png").unlink()  # as --no-check leaves out
    quick_data.write_text(quick_data.read_text() + "1.png,too,many,cells\n")
    assert evaluate([*shlex.split(evaluation), "--num-beams", "1", "--json", "--dtype", "float32"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures, "of the others nothing is read"
    (tmp_path / "ids.txt").write_text("0\nano\u2028ther\n\n", encoding="utf-8")
    words = shlex.split(evaluation)
    words[words.index("--validation-ids") + 1] = str(tmp_path / "ids.txt")
    assert evaluate(words) == 1
    assert "lacks 1 images" in capsys.readouterr().err


def test_data_with_a_val_split_keeps_it(quick_data, tmp_path):
    lines = quick_data.read_text().splitlines()
    splits = ["split", *["val"] * 3, *["train"] * 9]
    quick_data.write_text("\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True)))
    (source,) = open_sources(TrainConfig(data=(str(quick_data),), run="x"))
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
    quick_run, quick_data, tmp_path, capsys, damage, check_says, left_out
):
    image = quick_data.parent / "3.png"
    if damage == "missing":
        image.unlink()
    elif damage == "broken":
        image.write_bytes(image.read_bytes()[:40])
    else:
        quick_data.write_text(quick_data.read_text().replace("3.png,", "3.png,one,too,many,"))
    assert train.main(quick_run) == 1
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


def test_data_without_any_usable_image_is_an_error(quick_run, quick_data, tmp_path, capsys):
    for path in quick_data.parent.glob("*.png"):
        path.unlink()
    assert train.main([*quick_run, "--no-check"]) == 1
    error = capsys.readouterr().err
    assert "has no usable image to train on; 12 records cannot be used" in error
    assert "0.png" in error
    assert not (tmp_path / "run").exists()


def test_an_image_that_disappears_during_a_run_is_named(quick_run, quick_data, tmp_path, capsys):
    arguments = [*quick_run, "--freeze", "none", "--val-share", "0"]
    beginning = new_run(parse_arguments(arguments), {})
    (quick_data.parent / "7.png").unlink()
    (tmp_path / "run").mkdir()
    trainer = train.Trainer(beginning)
    trainer.prepare()
    with pytest.raises(Exception, match=r"line 9.*7\.png"):
        trainer.train()


# The last lines


def test_the_last_lines_name_the_weights_and_the_next_commands(quick_run, tmp_path, capsys):
    assert train.main(quick_run) == 0
    closing = capsys.readouterr().out.split("6 steps in ")[1]
    best = tmp_path / "run/best"
    assert f"python -m model caption IMAGE --checkpoint {best}" in closing
    assert f"python -m service --checkpoint {best}" in closing
    is_late = "the weights of step 5" in closing or "the weights of step 6" in closing  # then a longer run may be better
    assert (f"python train.py --run {tmp_path / 'run'} --resume --epochs 4" in closing) == is_late
    assert "before training" in closing
    assert "2 validation images are too few to say whether that is an improvement" in closing
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


def test_a_run_whose_captions_are_all_the_same_says_so_with_and_without_validation_images(quick_data, tmp_path, capsys):
    network = ["--stem", "", "--patch-size", "56", "--hidden-size", "24", "--num-heads", "2", "--encoder-layers", "1"]
    network += ["--decoder-layers", "1", "--vocab-size", "300", "--from-scratch", "--lr", "0", "--image-size", "56"]
    for number, share in enumerate(("0.2", "0")):
        arguments = [*QUICK, "--data", str(quick_data), "--run", str(tmp_path / str(number)), *network, "--val-share", share]
        assert train.main([*arguments, "--max-steps", "1"]) == 0
        assert "NOT USABLE: it writes one caption for all images" in capsys.readouterr().out
