"""Captioned images: COCO json and tar shards on disk, data sets for training, and augmented views."""

from __future__ import annotations

import io
import json
import random
import tarfile

import pytest
from PIL import Image, ImageDraw

from corpus import (
    DataError,
    ErrorLog,
    augmented,
    is_mirrored,
    mirrored_caption,
    normalize_caption,
    open_dataset,
    read_data,
    usable_entries,
)
from model import ImageConfig, prepare, resize_and_normalize


@pytest.fixture
def coco(tmp_path, photo):
    """Write a COCO folder of two images."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(photo(format="JPEG"))
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": "x2", "file_name": "b.jpg", "split": "test"}],
        "annotations": [
            {"id": 1, "image_id": 1, "caption": "A dog."},
            {"id": 2, "image_id": 1, "caption": " A brown dog runs . "},
            {"id": 3, "image_id": "x2", "caption": "a cat"},
        ],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def shards(tmp_path, photo):
    """Write two shards with captions in two languages."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, names in (("train-00", ("p", "q")), ("test-00", ("r",))):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for name in names:
                data = photo(format="WEBP")
                entry = tarfile.TarInfo(f"{name}.webp")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    rows = [
        {"image": "p", "split": "train", "captions": ["one", "two"], "boxes": [[1, 2, 3.5, 4, "dog"]]},
        {"image": "q", "split": "train", "captions": []},
        {"image": "r", "split": "test", "captions": ["three"]},
    ]
    (folder / "captions.en.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "captions.zh.jsonl").write_text(json.dumps({"image": "p", "split": "train", "captions": ["一"]}))
    return folder


def test_coco_is_read_from_a_file_and_from_a_folder(coco):
    for data in (coco, coco / "captions_val2017.json", f"coco:{coco}"):
        examples = read_data(data)
        assert [(e.image_id, e.split, e.references) for e in examples] == [
            ("1", "val", ("A dog.", "A brown dog runs .")),
            ("x2", "test", ("a cat",)),
        ]
        assert examples[0].read()[:2] == b"\xff\xd8"


def test_shards_are_read_with_the_captions_of_one_language(shards):
    examples = read_data(shards)
    assert [(e.image_id, e.split, e.references) for e in examples] == [
        ("p", "train", ("one", "two")),
        ("r", "test", ("three",)),
    ]
    assert examples[0].objects[0].name == "dog"
    assert examples[0].objects[0].box.x1 == 3.5
    assert examples[0].read()[8:12] == b"WEBP"
    (chinese,) = read_data(shards, language="zh")
    assert (chinese.references, chinese.languages) == (("一",), ("zh",))
    assert len(read_data(shards / "captions.en.jsonl", need_captions=False)) == 3


def test_an_image_id_in_two_splits_is_an_error(coco):
    document = json.loads((coco / "captions_val2017.json").read_text())
    document["images"], document["annotations"] = document["images"][:1], document["annotations"][:2]
    (coco / "captions_train2017.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="image '1' is in the splits 'train' and 'val'"):
        read_data(coco)


def test_folders_of_the_coco_download_are_read(coco):
    (coco / "annotations").mkdir()
    (coco / "captions_val2017.json").rename(coco / "annotations/captions_val2017.json")
    (coco / "images").rename(coco / "val2017")
    (coco / "test2017").mkdir()
    (coco / "val2017/b.jpg").rename(coco / "test2017/b.jpg")
    assert [example.split for example in read_data(coco)] == ["val", "test"]


def test_only_a_line_feed_ends_a_json_line(shards):
    rows = ['{"image": "p", "captions": ["one\u2028two"]}', "", '{"image": "zz", "captions": ["x"]}']
    (shards / "captions.en.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="line 3"):
        read_data(shards)


def test_training_and_service_decode_an_image_to_the_same_pixels(tmp_path):
    """Upright, alpha over white, 16 bits scaled to 8."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated, transparent, deep = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.linear_gradient("L").resize((80, 40)).convert("RGB").save(rotated, "JPEG", exif=exif, quality=95)
    Image.new("RGBA", (30, 30), (255, 0, 0, 0)).save(transparent, "PNG")
    Image.new("I;16", (30, 30), 40_000).save(deep, "PNG")
    (tmp_path / "images").mkdir()
    files = {"a.jpg": rotated, "b.png": transparent, "c.png": deep}
    for name, file in files.items():
        (tmp_path / "images" / name).write_bytes(file.getvalue())
    document = {
        "images": [{"id": name, "file_name": name} for name in files],
        "annotations": [{"id": n, "image_id": name, "caption": "a"} for n, name in enumerate(files)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(document))
    config = ImageConfig(height=24, width=24)
    for entry, file in zip(open_dataset(str(tmp_path)).split("train"), files.values(), strict=True):
        training, service = resize_and_normalize(entry.load(), config), prepare(file.getvalue(), config).pixels
        assert (training - service).abs().max() < 0.05


def test_only_english_captions_are_mirrored(shards):
    assert open_dataset(str(shards)).split("train")[0].can_mirror
    assert not open_dataset(str(shards), language="zh").split("train")[0].can_mirror


def test_missing_data_and_unknown_formats_are_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_data(tmp_path / "none")
    with pytest.raises(DataError, match=r"no captions in a known format; expected .* it has no files"):
        read_data(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match="has an unknown format; write FORMAT:"):
        read_data(tmp_path / "x.txt")


def test_a_dataset_normalizes_captions(shards, coco):
    dataset = open_dataset(str(shards))
    assert [entry.captions for entry in dataset.split("train")] == [("one", "two")]
    assert dataset.split("train")[0].load().size == (64, 48)
    assert normalize_caption("  A Dog\truns . ") == "a dog runs"
    with pytest.raises(DataError, match="train split"):
        open_dataset(str(coco))


def test_scenes_are_a_dataset_without_files():
    dataset = open_dataset("scenes:3")
    assert len(dataset.split("train")) == 3
    assert len(dataset.split("val")) == 200
    assert dataset.split("train")[0].load().size == (224, 224)
    with pytest.raises(DataError, match="scenes:many"):
        open_dataset("scenes:many")


def test_positions_are_stated_in_training_only_and_of_the_same_images():
    scenes, positions = open_dataset("scenes:30"), open_dataset("positions:30")
    pairs = list(zip(scenes.split("train"), positions.split("train"), strict=True))
    assert all(one.fingerprint == two.fingerprint and one.captions == two.captions[:2] for one, two in pairs)
    assert all(" in the " in two.captions[2] for _, two in pairs)
    assert [entry.captions for entry in scenes.split("val")] == [entry.captions for entry in positions.split("val")]
    with pytest.raises(DataError, match="positions:many"):
        open_dataset("positions:many")


def test_a_mirrored_view_swaps_the_words_left_and_right():
    assert mirrored_caption("the dog left of the right lefty") == "the dog right of the left lefty"
    assert [is_mirrored(view) for view in range(4)] == [False, True, False, True]


def test_views_mirror_or_crop_the_image():
    image = Image.new("RGB", (100, 50), "black")
    ImageDraw.Draw(image).rectangle((0, 0, 19, 49), fill="white")
    assert augmented(image, 0, random.Random(0)).tobytes() == image.tobytes()
    assert augmented(image, 1, random.Random(0)).getpixel((99, 10)) == (255, 255, 255)
    for seed in range(20):
        width, height = augmented(image, 2, random.Random(seed)).size
        assert 74 <= width <= 100
        assert 37 <= height <= 50


@pytest.fixture
def images_of_which_some_are_unusable(tmp_path, photo):
    """Write a CSV of seven images; some are missing or damaged, and one record has too many cells."""
    jpeg = photo(format="JPEG")
    files = {"a.jpg": jpeg, "cut.jpg": jpeg[:-200], "text.png": b"hello", "empty.png": b"", "z.jpg": jpeg}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    lines = ["file,caption", *(f"{name},a dog" for name in (*files, "gone.jpg", "x" * 300 + ".jpg")), "a.jpg,a,b"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path / "captions.csv"


def test_usable_entries_are_separated_from_missing_and_damaged_images(images_of_which_some_are_unusable):
    data = images_of_which_some_are_unusable
    with pytest.raises(DataError, match=r"line 7: the image 'gone\.jpg' is not in"):
        open_dataset(str(data))
    errors = ErrorLog(keep=True)
    entries = open_dataset(str(data), errors=errors, need_images=False).split("train")
    assert [message for message in errors.messages if "line 9 has 3 cells" in message] == errors.messages

    usable, problems = usable_entries(entries)

    assert [entry.image_id for entry in usable] == ["a", "z"]
    assert [problem.origin for problem in problems] == [f"{data}, line {number}" for number in (3, 4, 5, 7, 8)]
    for problem, name in zip(problems, ("cut.jpg", "text.png", "empty.png", "gone.jpg", "xxx.jpg"), strict=True):
        assert problem.message.startswith(problem.origin)
        assert name in problem.message
        assert "; " in problem.message, "the message says what to do"
    assert usable_entries(open_dataset("scenes:2").split("train"))[1] == []


def test_an_image_that_cannot_be_loaded_is_an_error_that_names_file_and_record(images_of_which_some_are_unusable):
    data = images_of_which_some_are_unusable
    entries = open_dataset(str(data), errors=ErrorLog(keep=True), need_images=False).split("train")
    by_id = {entry.image_id: entry for entry in entries}
    for image_id, file, line in (("cut", "cut.jpg", 3), ("text", "text.png", 4), ("gone", "gone.jpg", 7)):
        with pytest.raises(DataError, match=rf"captions\.csv, line {line}: .*{file} cannot be (used|read)"):
            by_id[image_id].load()
