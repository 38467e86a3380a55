"""Specifications and files that cannot be read: errors that say what to do, one row each; and what a check reports."""

from __future__ import annotations

import re

import pytest

from corpus import DataError, ErrorLog, open_dataset, read_data, stream_data
from corpus.check import check_data
from corpus.formats.columns import columns_of
from corpus.formats.data_spec import parse_spec
from corpus.formats.detect import detect_format
from tests.layouts import DOG, coco, karpathy, table, write
from tests.odd_images import encoded, photo_like
from tests.test_odd_data import JPEG

TABLE_FILE = {"t.csv": "file,caption\na.jpg,a dog\n", "a.jpg": None}
ERRORS = {
    "an option that a format does not have": (
        {"captions.json": coco()},
        "coco:{}?id=file_name",
        r"coco has no option 'id'; it has truncated: remove it",
    ),
    "an option of another format": (
        {"dataset.json": karpathy()},
        "karpathy:{}?caption=raw",
        r"karpathy has no option 'caption'; it has id, truncated: remove it",
    ),
    "a misspelled option": (
        TABLE_FILE,
        "csv:{}?captoin=x",
        r"csv has no option 'captoin'; it has .*boxes, truncated: did you mean caption\?",
    ),
    "an option of sidecar": (
        {"a.jpg": None, "a.txt": "x"},
        "sidecar:{}?ext=txt",
        r"sidecar has no option 'ext'; it has truncated",
    ),
    "an option without a value": (TABLE_FILE, "csv:{}?image=", r"the option 'image' has no value; write image=NAME"),
    "an option without =": (TABLE_FILE, "csv:{}?image", r"the option 'image' has no value"),
    "an option twice": (TABLE_FILE, "csv:{}?image=file&image=file", r"has the option 'image' twice"),
    "a field that records do not have": (
        {"dataset.json": karpathy({"filename": "a.jpg"}), "a.jpg": None},
        "karpathy:{}?id=cocoid",
        r"images\[0\] has no 'cocoid'; it has 'split', 'sentences', 'filename': name one of these",
    ),
    "a field that samples do not have": (
        {"s.tar": [("1.jpg", JPEG), ("1.json", '{"key": 1}')]},
        "webdataset:{}?id=uid",
        r"sample '1' has no 'uid' in its .json; it has 'key'",
    ),
    "a column that a table does not have": (
        TABLE_FILE,
        "csv:{}?image=pic",
        r"t.csv, line 1, has no column 'pic'; it has 'file', 'caption'",
    ),
    "a misspelled format": (TABLE_FILE, "cvs:{}", r"'cvs' is not a format of files; did you mean csv\?"),
    "a number of scenes for files": (TABLE_FILE, "scenes:{}", r"'scenes' is not a format of files"),
    "a zip": ({"x.zip": b"PK"}, "{}/x.zip", r"x.zip is an archive; unpack it, and name the folder"),
    "a folder with a zip": ({"x.zip": b"PK"}, "{}", r"x.zip is an archive; unpack it"),
    "a workbook": ({"x.xlsx": b"PK"}, "{}/x.xlsx", r"x.xlsx is a .xlsx file, which is not read; save it as CSV"),
    "a table in Latin-1": (
        {"t.csv": "file,caption\na.jpg,caf\xe9\n".encode("latin-1"), "a.jpg": None},
        "{}",
        r"t.csv, line 2 is not UTF-8 .*; save",
    ),
    "UTF-16 without a mark": (
        {"t.csv": "file,caption\n".encode("utf-16-le")},
        "csv:{}/t.csv",
        r"t.csv, line 1 has a NUL character: it may be UTF-16",
    ),
    "the same file in two splits": (
        {"t.csv": table(("file", "caption", "split"), ("a.jpg", "x", "train"), ("a.jpg", "x", "test")), "a.jpg": None},
        "{}",
        r"line 3: 'a' is in 'test', but .*line 2 has it in 'train'; choose one split",
    ),
    "the same file in two splits, by two ids": (
        {
            "t.csv": table(("file", "caption", "split", "image_id"), ("a.jpg", "x", "train", "1"), ("./a.jpg", "x", "test", "2")),
            "a.jpg": None,
        },
        "{}",
        r"image '2' is in the splits 'train' and 'test'",
    ),
    "one text of two images": (
        {"a.jpg": None, "a.png": None, "a.txt": "x"},
        "{}",
        r"a.jpg and .*a.png differ only in their suffix.*name it a.jpg.txt",
    ),
    "a row with too many cells": (
        {"t.csv": "file,caption\na.jpg,a,b\n", "a.jpg": None},
        "{}",
        r"line 2 has 3 cells but there are 2 columns",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_input_that_cannot_be_read_is_an_error_that_says_what_to_do(name, tmp_path):
    files, data, message = ERRORS[name]
    write(tmp_path / "d", files)
    with pytest.raises(DataError) as error:
        read_data(data.format(tmp_path / "d"))
    assert re.search(message, str(error.value)), str(error.value)


def test_a_pair_with_one_text_does_not_stop_the_check_of_the_rest(tmp_path):
    write(tmp_path, {"a.jpg": None, "a.png": None, "a.txt": "x", "b.jpg": None, "b.txt": "a dog"})
    errors = ErrorLog(keep=True)
    references = [example.references for example in stream_data(tmp_path, errors=errors)]
    assert (sorted(references), len(errors.messages)) == ([(), (), DOG], 1)


def test_what_is_left_out_is_reported_by_the_check(tmp_path):
    write(
        tmp_path,
        {
            "c.csv": "file,caption\na.jpg,a dog\na.jpg,\n",
            "labels.csv": "file,class\na.jpg,dog\n",
            **dict.fromkeys(("a.jpg", "b.jpg", "c.jxl", "sub/d.JPG", ".thumbs/e.jpg", "__MACOSX/f.jpg")),
        },
    )
    findings = {
        entry.title: [case.origin.removeprefix(f"{tmp_path}/") for case in entry.cases]
        for entry in check_data(str(tmp_path)).findings
    }
    assert findings["image files that no record names"] == ["b.jpg", "sub/d.JPG"]
    assert findings["files that look like images and are not read"] == ["c.jxl"]
    assert findings["tables that are not read"] == ["labels.csv"]
    assert findings["captions that are left out"] == ["c.csv, line 2"]


def findings_of(data: str) -> dict[str, list[str]]:
    return {entry.title: [case.text or case.origin for case in entry.cases] for entry in check_data(data).findings}


def test_a_table_that_is_read_is_not_reported_as_unread(tmp_path):
    write(tmp_path, {"c.csv": "file,caption\na.jpg,a dog\n", "d.csv": "file,caption\na.jpg,a brown dog\n", "a.jpg": None})
    assert len(read_data(tmp_path)[0].references) == 2
    assert "tables that are not read" not in findings_of(str(tmp_path))


def test_the_folder_around_a_table_is_no_folder_of_images(tmp_path):
    """A missing image is not looked for there, and other files of that folder are no part of the data."""
    files = {"c.csv": "file,caption\na.jpg,a dog\nb.jpg,a cat\n", "other.csv": "a,b\n", "sheet.png": None, "photos/a.jpg": None}
    write(tmp_path, files)
    findings = findings_of(str(tmp_path / "c.csv"))
    assert findings.keys().isdisjoint({"tables that are not read", "image files that no record names"})
    assert "nor is it in a folder of images beside the captions" in findings["missing images"][0]


def test_parts_of_a_specification(tmp_path):
    (tmp_path / "a?b").mkdir()
    assert parse_spec(f"jsonl:{tmp_path}?image=x").options == {"image": "x"}
    assert parse_spec(f"{tmp_path}/a?b").options == {}
    write(tmp_path, TABLE_FILE)
    data_format, paths, options = detect_format(f"csv:{tmp_path}?ID=File")
    assert (data_format.name, [path.name for path in paths], options) == ("csv", ["t.csv"], {"id": "File"})
    assert columns_of(["File", "text"], options, "")["id"] == ["File"]


def test_truncated_images_of_any_format_are_used_where_the_data_says_so(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(encoded(photo_like(), "JPEG")[:-2])
    (tmp_path / "cut.txt").write_text("a dog")
    with pytest.raises(DataError, match=r"cut\.jpg"):
        open_dataset(str(tmp_path)).split("train")[0].load()
    assert check_data(str(tmp_path)).errors == 1
    data = f"sidecar:{tmp_path}?truncated=accept"
    assert open_dataset(data).split("train")[0].load().size == photo_like().size
    report = check_data(data)
    assert report.errors == 0
    assert "truncated images" in report.to_text()
    with pytest.raises(DataError, match="truncated is 'yes'; write truncated=accept"):
        parse_spec(f"sidecar:{tmp_path}?truncated=yes")
