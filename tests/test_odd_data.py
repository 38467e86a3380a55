"""Unusual folders: colliding names, links, upper-case suffixes, concurrent writers. No example is lost without an error."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from corpus import FORMATS, DataError, Example, convert, read_data, stream_data
from corpus.__main__ import main
from corpus.check import check_data
from corpus.formats.writer import NewFolder

JPEG = b"\xff\xd8\xff"


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG + name.encode())


def write_lines(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_shard(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> None:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            entry = tarfile.TarInfo(member[0])
            entry.size = len(member[1])
            archive.addfile(entry, io.BytesIO(member[1]))


def test_folders_of_one_imagefolder_may_have_the_same_file_names(tmp_path):
    write_images(tmp_path, "train/1.jpg", "validation/1.jpg")
    write_lines(tmp_path / "train/metadata.jsonl", {"file_name": "1.jpg", "text": "a dog"})
    write_lines(tmp_path / "validation/metadata.jsonl", {"file_name": "1.jpg", "text": "a cat"})
    examples = {example.image_id: (example.split, example.references, example.read()[3:]) for example in stream_data(tmp_path)}
    assert examples == {
        "train/1": ("train", ("a dog",), b"train/1.jpg"),
        "validation/1": ("val", ("a cat",), b"validation/1.jpg"),
    }


def test_the_folder_of_an_image_is_its_split_if_record_and_file_name_have_none(tmp_path):
    write_images(tmp_path, "test/2.jpg", "other/3.jpg", "val2014/4.jpg")
    rows = [{"file_name": name, "text": "x"} for name in ("test/2.jpg", "other/3.jpg", "val2014/4.jpg")]
    write_lines(tmp_path / "metadata.jsonl", *rows)
    assert [example.split for example in stream_data(tmp_path)] == ["test", "train", "val"]
    write_lines(tmp_path / "my_train.jsonl", *rows)
    assert {example.split for example in stream_data(tmp_path / "my_train.jsonl")} == {"train"}


def test_records_without_a_column_for_captions_are_an_error(tmp_path):
    write_images(tmp_path, "1.jpg")
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "prompt": "a dog"})
    with pytest.raises(DataError, match=r"no column for captions; they have 'file_name', 'prompt': name it"):
        read_data(tmp_path)
    (example,) = read_data(f"jsonl:{tmp_path}?caption=prompt")
    assert example.references == ("a dog",)
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "text": None})
    assert [example.references for example in stream_data(tmp_path)] == [()]


def test_images_in_shards_without_a_line_are_kept(tmp_path):
    write_shard(tmp_path / "val-0.tar", ("a.jpg", JPEG), ("b.jpg", JPEG + b"b"))
    write_lines(tmp_path / "captions.en.jsonl", {"image": "a", "captions": ["x"], "split": "val"})
    assert convert(tmp_path, f"jsonl:{tmp_path}/out") == (2, {})
    assert {(one.image_id, one.split, one.references) for one in stream_data(tmp_path / "out")} == {
        ("a", "val", ("x",)),
        ("b", "val", ()),
    }


@pytest.mark.parametrize("problem", ["two tars", "zeroed header", "link"])
def test_a_shard_with_unreadable_members_is_an_error(tmp_path, problem):
    sample = [("1.jpg", JPEG), ("1.txt", b"one"), ("2.jpg", JPEG), ("2.txt", b"two")]
    link = tarfile.TarInfo("3.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "1.jpg"
    write_shard(tmp_path / "a.tar", *sample, *([link] if problem == "link" else []))
    data = (tmp_path / "a.tar").read_bytes()
    if problem == "two tars":
        (tmp_path / "a.tar").write_bytes(data + data)
    if problem == "zeroed header":
        (tmp_path / "a.tar").write_bytes(data[:2048] + bytes(512) + data[2560:])
    with pytest.raises(
        DataError, match=r"a.tar(: the member '3.jpg' is not a regular file| has data after its end mark at byte \d+)"
    ):
        read_data(tmp_path)


def test_a_null_language_is_no_language(tmp_path):
    write_images(tmp_path, "images/1.jpg")
    annotation = {"id": 1, "image_id": 1, "caption": "a dog", "language": None}
    document = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [annotation]}
    (tmp_path / "captions.json").write_text(json.dumps(document))
    assert read_data(tmp_path)[0].languages == ("",)
    annotation["language"] = 5
    (tmp_path / "captions.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotations\[0\]: 'language' is 5"):
        read_data(tmp_path)


@pytest.mark.parametrize("tag", ["/../evil", "zh/TW", "..", "a b", "zh.x"])
@pytest.mark.parametrize("kind", ["shards", "sidecar", "jsonl"])
def test_a_language_that_is_not_a_tag_is_an_error(tmp_path, kind, tag):
    example = Example(JPEG, ("x",), "train", "a", (tag,))
    with pytest.raises(DataError, match="a language is a tag"), NewFolder(tmp_path / "out") as new:
        FORMATS[kind].write([example], new)
    assert not list(tmp_path.iterdir())


def test_target_names_are_not_run_as_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, "in/1.jpg")
    (tmp_path / "in/1.txt").write_text("a dog")
    for name in ("pipe:touch HACKED #", "a:b", "50%dd", "sp ace?x=1"):
        assert main(["convert", "in", f"webdataset:{name}/out"]) == 0
        assert [example.references for example in stream_data(tmp_path / name / "out")] == [("a dog",)]
    assert not (tmp_path / "HACKED").exists()
    assert main(["convert", "in", "jsonl:sp ace?x=1/lines"]) == 0
    assert len(list(stream_data("jsonl:sp ace?x=1/lines"))) == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert main(["convert", "in", "jsonl:link"]) == 0
    assert (tmp_path / "empty/metadata.jsonl").exists()
    assert main(["convert", "in", "jsonl:."]) == 1


def test_conversions_to_the_same_folder_do_not_overwrite_each_other(tmp_path):
    example = Example(JPEG, ("x",), "train", "a")
    with NewFolder(tmp_path / "out") as first:
        FORMATS["jsonl"].write([example], first)
        with pytest.raises(DataError, match="split"), NewFolder(tmp_path / "out") as second:
            FORMATS["jsonl"].write([Example(JPEG, (), "a/b", "b")], second)
    assert len(list(stream_data(tmp_path / "out"))) == 1
    late = NewFolder(tmp_path / "late")
    late.__enter__().write_json("x.json", {})
    write_images(tmp_path, "late/of_another_process.jpg")
    with pytest.raises(DataError, match="cannot be created"):
        late.__exit__(None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "out"]


def test_a_full_shard_is_followed_by_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr("corpus.formats.tar_shards.MAX_SAMPLES", 2)
    examples = [Example(JPEG + bytes([number]), ("x",), "train", str(number)) for number in range(5)]
    with NewFolder(tmp_path / "out") as new:
        FORMATS["webdataset"].write(examples, new)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"train-00000{number}.tar" for number in range(3)]
    assert [example.read()[3] for example in stream_data(tmp_path / "out")] == [0, 1, 2, 3, 4]


def test_upper_case_suffixes_are_read(tmp_path):
    write_images(tmp_path, "A.JPG", "b.jpeg", ".thumbs/A.jpg")
    (tmp_path / "A.TXT").write_text("one")
    (tmp_path / "b.EN.txt").write_text("two")
    (tmp_path / "README.txt").write_text("about this folder")
    examples = [(example.image_id, example.references, example.languages) for example in stream_data(tmp_path)]
    assert examples == [("A", ("one",), ("",)), ("b", ("two",), ("EN",))]
    write_shard(tmp_path / "s.tar", ("1.JPG", JPEG), ("1.Json", b'{"caption": "x", "image_id": 0}'))
    assert [(example.image_id, example.references) for example in stream_data(tmp_path / "s.tar")] == [("0", ("x",))]
    write_shard(tmp_path / "dots.tar", ("img.v1.jpg", JPEG), ("img.v1.txt", b"x"))
    with pytest.raises(DataError, match="a key ends at the first dot"):
        read_data(tmp_path / "dots.tar")


def test_an_image_id_that_ends_with_a_language_cannot_be_written_as_sidecar(tmp_path):
    examples = [Example(JPEG, ("x",), "train", "a", ("zh",)), Example(JPEG, (), "train", "a.zh")]
    with pytest.raises(DataError, match=r"'a.zh' ends with a language"), NewFolder(tmp_path / "out") as new:
        FORMATS["sidecar"].write(examples, new)


def test_lemmatized_captions_of_flickr8k_are_ignored(tmp_path):
    write_images(tmp_path, "a.jpg")
    for name in ("Flickr8k.token.txt", "Flickr8k.lemma.token.txt"):
        (tmp_path / name).write_text("a.jpg#0\tA dog .\n")
    assert len(read_data(tmp_path)) == 1


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800"])
def test_a_name_that_is_not_a_valid_file_name_is_a_missing_image(tmp_path, name):
    write_images(tmp_path, "1.jpg")
    write_lines(
        tmp_path / "metadata.jsonl", {"file_name": name, "image_id": "bad", "text": "x"}, {"file_name": "1.jpg", "text": "a dog"}
    )
    with pytest.raises(DataError, match=r"line 1: the image .* is not in"):
        read_data(tmp_path)
    (missing,) = (entry for entry in check_data(str(tmp_path)).findings if entry.title == "missing images")
    assert missing.cases[0].origin.endswith("line 1")
    missing.cases[0].text.encode()
    assert main(["show", str(tmp_path), str(tmp_path / "show.html")]) == 0


def test_invalid_image_ids_are_errors(tmp_path):
    write_images(tmp_path, "1.jpg")
    for value, message in (
        ("\ud800", "unpaired surrogate"),
        ("a\nb", "control character"),
        (1.5, "must be a string or an integer"),
    ):
        write_lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "image_id": value, "text": "x"})
        with pytest.raises(DataError, match=f"line 1: the image id .*{message}"):
            read_data(tmp_path)
    long = Example(JPEG, ("x",), "train", "9" * 5_000)
    with NewFolder(tmp_path / "coco") as new:
        FORMATS["coco"].write([long], new)
    assert next(stream_data(tmp_path / "coco")).image_id == "9" * 5_000
    with pytest.raises(DataError, match="is not a valid file name"), NewFolder(tmp_path / "side") as new:
        FORMATS["sidecar"].write([Example(JPEG, ("x",), "train", "字" * 95)], new)


def test_images_are_not_looked_up_in_the_working_directory(tmp_path, monkeypatch):
    write_images(tmp_path, "cwd/images/1.jpg")
    write_lines(tmp_path / "data/metadata.jsonl", {"file_name": "images/1.jpg", "text": "x"})
    monkeypatch.chdir(tmp_path / "cwd")
    assert "missing images" in [entry.title for entry in check_data("../data").findings]


@pytest.mark.parametrize("box", [[20, 20, -5, 5], [0, 0, float("nan"), 1], ["a", 0, 1, 1]])
def test_an_invalid_coco_box_is_an_error_that_keeps_the_captions(tmp_path, box):
    write_images(tmp_path, "images/1.jpg")
    images = [{"id": 1, "file_name": "1.jpg"}]
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    boxes = {
        "images": images,
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "instances.json").write_text(json.dumps(boxes))
    with pytest.raises(DataError, match=r"instances.json: annotations\[0\] has the box"):
        read_data(tmp_path)
    (tmp_path / "instances.json").write_text("{")
    assert check_data(str(tmp_path)).captions == {"": 1}, "captions are kept if boxes are invalid"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}/t.csv?image=img", "names columns but no format; write csv:"),
        ("zip:{}", "'zip' is not a format of files; use one of shards, "),
    ],
)
def test_a_missing_or_unknown_format_is_an_error(tmp_path, data, message):
    (tmp_path / "t.csv").write_text("img,caption\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read_data(data.format(tmp_path))


def test_an_output_that_cannot_be_written_is_an_error_before_the_work(tmp_path, capsys):
    write_images(tmp_path, "in/1.jpg")
    (tmp_path / "in/1.txt").write_text("a dog")
    (tmp_path / "file").write_text("x")
    data, inside = str(tmp_path / "in"), str(tmp_path / "file/x")
    for arguments in (["check", data, "--html", inside], ["show", data, inside], ["convert", data, f"jsonl:{inside}/y"]):
        assert main(arguments) == 1
        assert "cannot be written" in capsys.readouterr().err
    assert main(["show", data, str(tmp_path)]) == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err
    assert main(["show", data, str(tmp_path / "new/page.html")]) == 0


def test_a_check_of_data_without_images_has_an_error(tmp_path):
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": []}')
    assert main(["check", str(tmp_path)]) == 1


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path):
    write_images(tmp_path, "1.jpg")
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("file", "caption"), ("1.jpg", "a dog,\r\nsitting"), ("1.jpg", "two")])
    assert read_data(tmp_path)[0].references == ("a dog,\r\nsitting", "two")
