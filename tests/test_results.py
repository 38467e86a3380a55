"""Results of other programs: their image ids are those of the data, or the image ids that the reader made unique."""

from __future__ import annotations

import json

import pytest

from corpus import DataError, read_data
from evaluation.__main__ import main
from evaluation.systems import System, match_results, read_results
from tests.layouts import coco, karpathy, write

TWO_IMAGES = {
    "annotations/captions_train2017.json": coco(caption="a dog runs"),
    "annotations/captions_val2017.json": coco(caption="a cat sleeps"),
    "train2017/1.jpg": None,
    "val2017/1.jpg": None,
}


def score(folder, capsys, results, *arguments, data=""):
    (folder / "r.json").write_text(json.dumps([{"image_id": image_id, "caption": text} for image_id, text in results.items()]))
    status = main(["captions", "--data", data or str(folder), "--results", str(folder / "r.json"), "--json", *arguments])
    output = capsys.readouterr()
    return json.loads(output.out)["systems"]["r"]["BLEU-1"] if status == 0 else output.err


def test_an_id_of_two_splits_is_that_of_the_chosen_split(tmp_path, capsys):
    write(tmp_path, TWO_IMAGES)
    assert score(tmp_path, capsys, {1: "a cat sleeps"}, "--split", "val") == pytest.approx(1.0)
    assert score(tmp_path, capsys, {1: "a cat sleeps"}, "--split", "train") == pytest.approx(1 / 3)
    assert score(tmp_path, capsys, {"val/1": "a cat sleeps"}) == pytest.approx(1.0)
    assert score(tmp_path, capsys, {"val/1": "a cat sleeps", "train/1": "a dog runs"}) == pytest.approx(1.0)


def test_an_id_of_two_images_is_an_error_that_names_both(tmp_path, capsys):
    write(tmp_path, TWO_IMAGES)
    message = score(tmp_path, capsys, {1: "a cat sleeps"})
    for part in ("'1' means 'train/1' (", "captions_train2017.json: images[0]", "and 'val/1' (", "--split"):
        assert part in message


def test_two_ids_of_one_image_are_an_error(tmp_path, capsys):
    write(tmp_path, TWO_IMAGES)
    message = score(tmp_path, capsys, {"val/1": "a cat", 1: "a cat"}, "--split", "val")
    assert "has two captions of image 'val/1', one of them as '1'" in message


def test_karpathys_file_is_scored_by_cocoid(tmp_path, capsys):
    record = {"filename": "x.jpg", "cocoid": 391895, "sentences": [{"raw": "a man on a moped"}]}
    write(tmp_path, {"dataset_coco.json": karpathy(record), "x.jpg": None})
    data = f"karpathy:{tmp_path}?id=cocoid"
    assert score(tmp_path, capsys, {391895: "a man on a moped"}, data=data) == pytest.approx(1.0)
    assert score(tmp_path, capsys, {391895.0: "a man on a moped"}, data=data) == pytest.approx(1.0)
    assert "karpathy has no option 'ids'; it has id, truncated: did you mean id?" in score(
        tmp_path, capsys, {1: "a"}, data=data.replace("?id", "?ids")
    )


@pytest.mark.parametrize("image_id", [None, True, 1.5, [1], ""])
def test_an_invalid_image_id_of_results_is_an_error(tmp_path, image_id):
    (tmp_path / "r.json").write_text(json.dumps([{"image_id": image_id, "caption": "a"}]))
    with pytest.raises(DataError, match=r"record 0 is .* must have an 'image_id'"):
        read_results(tmp_path / "r.json")


def test_results_may_have_a_byte_order_mark(tmp_path):
    (tmp_path / "r.json").write_text('[{"image_id": 1, "caption": "é"}]', encoding="utf-16")
    assert read_results(tmp_path / "r.json").captions == {"1": "é"}


def test_ids_that_mean_no_example_are_kept(tmp_path):
    write(tmp_path, TWO_IMAGES)
    examples = [example for example in read_data(tmp_path) if example.split == "val"]
    assert match_results(System("r", {"1": "a", "7": "b"}), examples).captions == {"val/1": "a", "7": "b"}
