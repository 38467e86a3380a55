"""The last steps of the embedded checkpoint's recipe: annotated boxes from detections, figures that are kept."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from corpus import draw_scene, read_data
from evaluation import png_bytes
from model import (
    DEFAULT_CHECKPOINT,
    Captioner,
    CaptionerError,
    ModelConfig,
    load_checkpoint,
    prepare,
    read_config,
    save_checkpoint,
)
from training.embedded.card import card
from training.embedded.data import EmbeddedData
from training.embedded.finish import figure, finish, learned_languages, offering, write_boxes


def test_boxes_are_what_the_detector_is_sure_of_in_pixels(tmp_path):
    folder = tmp_path / "data" / "flickr8k"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "detections").mkdir()
    rows = []
    for split in ("train", "val"):
        with tarfile.open(folder / f"{split}-00.tar", "w") as shard:
            for number in range(2):
                content = png_bytes(Image.new("RGB", (40, 20), (90 * number, 80, 70)))
                member = tarfile.TarInfo(f"{split}{number}.png")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
                rows.append({"image": f"{split}{number}", "split": split, "captions": ["A dog runs ."] * 5})
    (folder / "captions.en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    boxes = [[0.25, 0.5, 0.75, 1.0, 18, 0.9], [0, 0, 1, 1, 17, 0.4]]
    detected = [{"image": row["image"], "boxes": boxes if row["image"] != "val1" else boxes[1:]} for row in rows]
    with gzip.open(tmp_path / "data" / "detections" / "flickr8k.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in detected))

    write_boxes(tmp_path / "boxes", EmbeddedData(tmp_path / "data", tmp_path / "unused.json"))
    (example,) = read_data(str(tmp_path / "boxes" / "data.jsonl"))
    assert (example.image_id, example.split) == ("images/val0", "val")
    assert Image.open(io.BytesIO(example.read())).size == (40, 20)
    (box,) = example.objects
    assert (box.name, box.box.x0, box.box.y0, box.box.x1, box.box.y1) == ("dog", 10, 10, 30, 20)


def test_a_figure_is_computed_once_and_a_command_that_fails_leaves_none(tiny_captioner, tmp_path):
    network = tiny_captioner.runtime
    save_checkpoint(tmp_path / "c", network.config, network.state_dict(), tiny_captioner.tokenizer, "")
    arguments = ["maps", "--data", "scenes", "--scenes", "2", "--checkpoint", str(tmp_path / "c")]
    first = figure(tmp_path, "maps", arguments)
    assert first["objects"] > 0
    file = tmp_path / "figures" / "maps.json"
    file.write_text(json.dumps(first | {"objects": -1}))
    assert figure(tmp_path, "maps", arguments)["objects"] == -1
    with pytest.raises(CaptionerError, match="evaluation maps --data none"):
        figure(tmp_path, "other", ["maps", "--data", "none", "--checkpoint", str(tmp_path / "c")])
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["maps.json"]


def test_the_card_has_every_figure():
    caption = {"CIDEr": 0.512, "BLEU-4": 0.2, "CHAIRi": 0.31, "images": 1283, "intervals": {"CIDEr": [0.4, 0.6]}}
    systems = {"systems": {"beam 3": caption}, "baselines": {"best constant caption": caption | {"CIDEr": 0.117}}}
    maps = {"objects": 325, "pointing": 0.7, "center": 0.5, "swapped": 0.66, "patch_auroc": 0.8, "box_iou": 0.25, "flip": 0.9}
    reliable = {"count": 250, "expected_error": 0.021, "auroc": 0.81, "coverage_at_90": 0.33}
    figures = {
        "coco": systems | {"leave_one_out": {"human": {"CIDEr": 0.957, "BLEU-4": 0.206}}},
        "flickr8k": systems,
        "zh": systems,
        "scenes": {
            "beam 3": {"training_pairs": {"right": 0.911, "scenes": 500}, "unseen_pairs": {"right": 0.733, "scenes": 500}}
        },
        "maps_coco": maps,
        "maps_scenes": maps
        | {"by_size": {"below 3 %": {"objects": 2, "pointing": 0.51, "center": 0}}}
        | {"attributes": 0.85, "erased": 0.99},
        "calibration": {"abstract_images_above_median": 0.4167, "captions": reliable, "words": reliable, "object_words": None},
    }
    values = {"languages": "en, zh", "parameters": 25.1, "megabytes": 50.2, "tokens": 8000, "heads": 5}
    text = card(figures, values | {"threshold": 0.1, "length_penalty": 0.7})
    expectations = (
        "51.2 (40.0 to 60.0)",
        "95.7",
        "11.7",
        "91.1 %",
        "73.3 %",
        "| Chinese (by character) | 51.2",
        "8,000 tokens",
        "| color words nearest to their own object |  | 85.0 |",
        "| pointing, objects below 3 % of the image |  | 51.0 |",
        "| captions | 2.1 | 81.0 | 33.0 |",
        "25.1 million",
        "1,283 images",
        "training pairs, 500 scenes",
        "of 325 objects",
        "250 images of its test split",
        "41.7 % of images that are no photographs are above",
    )
    for expected in expectations:
        assert expected in text, expected
    assert "{" not in text


def _write_shards(folder, name, rows, images, split_of):
    """Write images, which are named by their number, as tar shards; `rows` are those of the captions file."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in {row[split_of] for row in rows}:
        with tarfile.open(folder / name.format(split=split), "w") as shard:
            for row in (row for row in rows if row[split_of] == split):
                content = images[int(row["image"])]
                member = tarfile.TarInfo(f"{row['image']}.png")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


@pytest.mark.slow
def test_a_trained_checkpoint_is_finished_with_boxes_confidence_figures_and_a_card(tmp_path):
    data = EmbeddedData(tmp_path / "data", tmp_path / "unused.json")
    captioner, rows = Captioner.load(device="cpu"), []
    images = [png_bytes(draw_scene(5, number).render()) for number in range(18)]
    results = captioner.caption([prepare(image, captioner.image_config) for image in images])
    for number, result in enumerate(results):  # a third of the captions are wrong
        captions = ["two people walk down a street at night" if number % 3 == 0 else result.captions[0].text] * 4
        split = ("train", "val", "test")[number // 6]
        rows.append({"image": str(number), "split": split, "captions": [*captions, "a dog runs beside a person on grass"]})
    _write_shards(data.flickr8k, "{split}-00.tar", rows, images, "split")
    (data.flickr8k / "captions.en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    boxed = {"width": 224, "height": 224, "boxes": [[10, 10, 90, 90, "dog"], [120, 20, 220, 200, "person"]]}
    boxed_rows = [row | boxed | {"coco_split": "val"} for row in rows[:4]]
    _write_shards(tmp_path / "data" / "coco", "photographs.tar", boxed_rows, images, "coco_split")
    coco = tmp_path / "data" / "coco" / "photographs.jsonl"
    coco.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "split"}) + "\n" for row in boxed_rows))
    (tmp_path / "data" / "detections").mkdir()
    with gzip.open(data.detections("flickr8k"), "wt") as file:
        file.write("".join(json.dumps({"image": row["image"], "boxes": [[0, 0, 0.5, 0.5, 18, 0.9]]}) + "\n" for row in rows))
    run = tmp_path / "run"
    scenes = {name: {"right": 0.5, "scenes": 500} for name in ("training_pairs", "unseen_pairs")}
    (run / "figures").mkdir(parents=True)  # of an interrupted recipe: 1,000 scenes take long
    (run / "figures" / "scenes.json").write_text(json.dumps({"beam 3": scenes}))
    (run / "figures" / "maps_scenes.json").write_text(json.dumps({"objects": 7, "pointing": 0.875}))

    folder = finish(data, DEFAULT_CHECKPOINT, run)
    config = read_config(folder)
    assert sorted(path.stem for path in (run / "figures").iterdir()) == sorted(
        ["boxes", "calibration", "coco", "flickr8k", "maps_coco", "maps_scenes", "scenes"]
    )
    figures = {path.stem: json.loads(path.read_text()) for path in (run / "figures").iterdir()}
    assert config.maps.box_threshold == figures["boxes"]["box_threshold"]
    assert list(config.confidence.caption) == figures["calibration"]["weights"]["caption"]
    assert config.maps.pointing == round(figures["maps_coco"]["pointing"], 3)
    assert config.generation.style == "sentence"
    assert "research and education only" in config.license
    trained = load_checkpoint(DEFAULT_CHECKPOINT).network.state_dict()
    for name, value in load_checkpoint(folder).network.state_dict().items():
        assert torch.equal(value, trained[name]), name
    text = (folder / "README.md").read_text()
    for expected in ("| | COCO photographs | synthetic scenes |", "87.5", "6 images", "8 objects of photographs"):
        assert expected in text, expected
    before = {path: path.stat().st_mtime_ns for path in (run / "figures").iterdir()}
    assert finish(data, DEFAULT_CHECKPOINT, run) == folder
    assert {path: path.stat().st_mtime_ns for path in (run / "figures").iterdir()} == before, "nothing is computed again"


def test_only_languages_that_were_learned_are_offered():
    def result(low, constant):
        system = {"CIDEr": low + 0.1, "intervals": {"CIDEr": [low, low + 0.2]}}
        return {"systems": {"beam 3": system}, "baselines": {"best constant caption": {"CIDEr": constant}}}

    languages = learned_languages(("en", "zh", "ar"), {"zh": result(0.4, 0.3), "ar": result(0.2, 0.3)})
    assert languages == ["en", "zh"]
    config = dataclasses.replace(ModelConfig(), languages=("en", "ar", "zh"), language_token_ids=(7, 8, 9))
    offered = offering(config, languages)
    assert (offered.languages, offered.language_token_ids) == (("en", "zh"), (7, 9))
