"""From a folder of captioned images to captions: train.py, its validation, the checkpoint, the Captioner."""

from __future__ import annotations

import io
import json

from PIL import Image

import train
from model import Captioner, prepare
from tests.test_training import TINY


def test_a_captioner_trained_on_a_folder_captions_new_images_correctly(tmp_path):
    colors = {"red": (220, 20, 20), "green": (20, 200, 30), "blue": (20, 30, 220)}
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(36):
        name, color = list(colors.items())[number % 3]
        Image.new("RGB", (40, 30), tuple(c + number for c in color)).save(tmp_path / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "split": "val" if number >= 30 else "train"})
        annotations.append({"id": number, "image_id": number, "caption": f"A {name} wall ."})
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    arguments = [
        *TINY[2:],
        "--data",
        str(tmp_path),
        "--run",
        str(tmp_path / "run"),
        "--from-scratch",
        "--epochs",
        "30",
        "--lr",
        "4e-3",
    ]
    assert train.main([*arguments, "--from-scratch", "--eval-epochs", "30", "--num-views", "1"]) == 0

    captioner = Captioner.load(tmp_path / "run/best", dtype="float32")
    for name, (red, green, blue) in colors.items():
        file = io.BytesIO()
        Image.new("RGB", (90, 120), (red + 5, green - 3, blue + 9)).save(file, "JPEG")
        (result,) = captioner.caption([prepare(file.getvalue(), captioner.image_config)])
        assert result.captions[0].text == f"A {name} wall."


def test_validation_compares_the_tokens_of_the_language_of_the_run(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    images = [{"id": n, "file_name": f"{n}.png", "split": "val" if n > 7 else "train"} for n in range(10)]
    for number in range(10):
        Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / f"{number}.png")
    annotations = [{"id": n, "image_id": n, "caption": "一面红墙"} for n in range(10)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    arguments = [*TINY[2:], "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--language", "zh", "--from-scratch"]
    arguments += ["--epochs", "150", "--lr", "4e-3", "--eval-epochs", "150", "--num-views", "1"]
    assert train.main(arguments) == 1, "the same red image is in both splits"
    output = capsys.readouterr()
    assert "ERROR: identical images in several splits: 1" in output.out
    assert "--no-check" in output.err
    assert not (tmp_path / "run").exists()
    assert train.main([*arguments, "--no-check"]) == 0
    out = capsys.readouterr().out
    assert "    一面红墙" in out
    assert "words 4.0" in out, "Chinese is compared by characters; as English it would be one word"
