"""Folders as people have them: names that collide, links, foreign endings, two programs at once; nothing is lost silently."""

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
from corpus.formats.writing import NewFolder

JPEG = b"\xff\xd8\xff"


def picture(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG + name.encode())


def lines(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def shard(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> None:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            entry = tarfile.TarInfo(member[0])
            entry.size = len(member[1])
            archive.addfile(entry, io.BytesIO(member[1]))


def test_two_pictures_are_never_joined_into_one(tmp_path):
    picture(tmp_path, "a.jpg", "a.png")
    lines(tmp_path / "metadata.jsonl", {"file_name": "a.jpg", "text": "a dog"}, {"file_name": "a.png", "text": "a bus"})
    with pytest.raises(DataError, match=r"line 2: 'a' is the picture 'a.png', and 'a.jpg' by .*line 1; give each an 'image_id'"):
        read_data(tmp_path)
    (tmp_path / "t.csv").write_text("image_id,file,caption\n7,a.jpg,x\n7,a.png,y\n")
    with pytest.raises(DataError, match=r"t.csv, line 3: '7' is the picture 'a.png'"):
        read_data(tmp_path / "t.csv")


def test_folders_of_one_imagefolder_may_use_the_same_names(tmp_path):
    picture(tmp_path, "train/1.jpg", "validation/1.jpg")
    lines(tmp_path / "train/metadata.jsonl", {"file_name": "1.jpg", "text": "a dog"})
    lines(tmp_path / "validation/metadata.jsonl", {"file_name": "1.jpg", "text": "a cat"})
    found = {example.image_id: (example.split, example.references, example.read()[3:]) for example in stream_data(tmp_path)}
    assert found == {
        "train/1": ("train", ("a dog",), b"train/1.jpg"),
        "validation/1": ("val", ("a cat",), b"validation/1.jpg"),
    }


def test_a_folder_of_the_pictures_path_is_the_split_where_nothing_else_tells_it(tmp_path):
    picture(tmp_path, "test/2.jpg", "other/3.jpg", "val2014/4.jpg")
    rows = [{"file_name": name, "text": "x"} for name in ("test/2.jpg", "other/3.jpg", "val2014/4.jpg")]
    lines(tmp_path / "metadata.jsonl", *rows)
    assert [example.split for example in stream_data(tmp_path)] == ["test", "train", "val"]
    lines(tmp_path / "my_train.jsonl", *rows)
    assert {example.split for example in stream_data(tmp_path / "my_train.jsonl")} == {"train"}


def test_records_without_a_column_for_captions_are_told(tmp_path):
    picture(tmp_path, "1.jpg")
    lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "prompt": "a dog"})
    with pytest.raises(DataError, match=r"no column for captions; they have 'file_name', 'prompt': name it"):
        read_data(tmp_path)
    (example,) = read_data(f"jsonl:{tmp_path}?caption=prompt")
    assert example.references == ("a dog",)
    lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "text": None})
    assert [example.references for example in stream_data(tmp_path)] == [()]


def test_pictures_of_shards_that_no_line_names_are_kept(tmp_path):
    shard(tmp_path / "val-0.tar", ("a.jpg", JPEG), ("b.jpg", JPEG + b"b"))
    lines(tmp_path / "captions.en.jsonl", {"image": "a", "captions": ["x"], "split": "val"})
    assert convert(tmp_path, f"jsonl:{tmp_path}/out") == (2, {})
    assert {(one.image_id, one.split, one.references) for one in stream_data(tmp_path / "out")} == {
        ("a", "val", ("x",)),
        ("b", "val", ()),
    }


@pytest.mark.parametrize("what", ["two tars", "hole", "link"])
def test_members_of_a_shard_are_not_lost_silently(tmp_path, what):
    sample = [("1.jpg", JPEG), ("1.txt", b"one"), ("2.jpg", JPEG), ("2.txt", b"two")]
    link = tarfile.TarInfo("3.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "1.jpg"
    shard(tmp_path / "a.tar", *sample, *([link] if what == "link" else []))
    data = (tmp_path / "a.tar").read_bytes()
    if what == "two tars":
        (tmp_path / "a.tar").write_bytes(data + data)
    if what == "hole":
        (tmp_path / "a.tar").write_bytes(data[:2048] + bytes(512) + data[2560:])
    with pytest.raises(DataError, match=r"a.tar(: the member '3.jpg' is a link| goes on behind its end mark at byte \d+)"):
        read_data(tmp_path)


def test_a_language_that_is_null_is_not_told(tmp_path):
    picture(tmp_path, "images/1.jpg")
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
def test_a_language_never_becomes_a_path(tmp_path, kind, tag):
    example = Example(JPEG, ("x",), "train", "a", (tag,))
    with pytest.raises(DataError, match="a language is a tag"), NewFolder(tmp_path / "out") as new:
        FORMATS[kind].write([example], new)
    assert not list(tmp_path.iterdir())


def test_names_of_targets_are_names_and_no_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path, "in/1.jpg")
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


def test_two_conversions_to_one_place_do_not_touch_each_other(tmp_path):
    example = Example(JPEG, ("x",), "train", "a")
    with NewFolder(tmp_path / "out") as first:
        FORMATS["jsonl"].write([example], first)
        with pytest.raises(DataError, match="split"), NewFolder(tmp_path / "out") as second:
            FORMATS["jsonl"].write([Example(JPEG, (), "a/b", "b")], second)
    assert len(list(stream_data(tmp_path / "out"))) == 1
    late = NewFolder(tmp_path / "late")
    late.__enter__().write_json("x.json", {})
    picture(tmp_path, "late/of_somebody_else.jpg")
    with pytest.raises(DataError, match="cannot be put there"):
        late.__exit__(None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "out"]


def test_shards_are_closed_where_they_are_full(tmp_path, monkeypatch):
    monkeypatch.setattr("corpus.formats.shards.SAMPLES", 2)
    examples = [Example(JPEG + bytes([number]), ("x",), "train", str(number)) for number in range(5)]
    with NewFolder(tmp_path / "out") as new:
        FORMATS["webdataset"].write(examples, new)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"train-00000{number}.tar" for number in range(3)]
    assert [example.read()[3] for example in stream_data(tmp_path / "out")] == [0, 1, 2, 3, 4]


def test_endings_and_texts_beside_pictures_in_capitals(tmp_path):
    picture(tmp_path, "A.JPG", "b.jpeg", ".thumbs/A.jpg")
    (tmp_path / "A.TXT").write_text("one")
    (tmp_path / "b.EN.txt").write_text("two")
    (tmp_path / "README.txt").write_text("about this folder")
    found = [(example.image_id, example.references, example.languages) for example in stream_data(tmp_path)]
    assert found == [("A", ("one",), ("",)), ("b", ("two",), ("EN",))]
    shard(tmp_path / "s.tar", ("1.JPG", JPEG), ("1.Json", b'{"caption": "x", "image_id": 0}'))
    assert [(example.image_id, example.references) for example in stream_data(tmp_path / "s.tar")] == [("0", ("x",))]
    shard(tmp_path / "dots.tar", ("img.v1.jpg", JPEG), ("img.v1.txt", b"x"))
    with pytest.raises(DataError, match="a key ends at the first dot"):
        read_data(tmp_path / "dots.tar")


def test_an_id_that_ends_like_a_language_is_no_name_of_a_sidecar(tmp_path):
    examples = [Example(JPEG, ("x",), "train", "a", ("zh",)), Example(JPEG, (), "train", "a.zh")]
    with pytest.raises(DataError, match=r"'a.zh' ends like a language"), NewFolder(tmp_path / "out") as new:
        FORMATS["sidecar"].write(examples, new)


def test_flickr8ks_base_forms_are_left_aside(tmp_path):
    picture(tmp_path, "a.jpg")
    for name in ("Flickr8k.token.txt", "Flickr8k.lemma.token.txt"):
        (tmp_path / name).write_text("a.jpg#0\tA dog .\n")
    assert len(read_data(tmp_path)) == 1


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_missing_picture(tmp_path, name):
    picture(tmp_path, "1.jpg")
    lines(
        tmp_path / "metadata.jsonl", {"file_name": name, "image_id": "bad", "text": "x"}, {"file_name": "1.jpg", "text": "a dog"}
    )
    with pytest.raises(DataError, match=r"line 1: the picture .* is not in"):
        read_data(tmp_path)
    (missing,) = (entry for entry in check_data(str(tmp_path)).findings if entry.title == "pictures missing")
    assert missing.cases[0].where.endswith("line 1")
    missing.cases[0].text.encode()
    assert main(["show", str(tmp_path), str(tmp_path / "show.html")]) == 0


def test_ids_that_cannot_be_written_are_told(tmp_path):
    picture(tmp_path, "1.jpg")
    for value, message in (
        ("\ud800", "half a character"),
        ("a\nb", "control character"),
        (1.5, "must be a text or a whole number"),
    ):
        lines(tmp_path / "metadata.jsonl", {"file_name": "1.jpg", "image_id": value, "text": "x"})
        with pytest.raises(DataError, match=f"line 1: the image id .*{message}"):
            read_data(tmp_path)
    long = Example(JPEG, ("x",), "train", "9" * 5_000)
    with NewFolder(tmp_path / "coco") as new:
        FORMATS["coco"].write([long], new)
    assert next(stream_data(tmp_path / "coco")).image_id == "9" * 5_000
    with pytest.raises(DataError, match="cannot be the name of a file"), NewFolder(tmp_path / "side") as new:
        FORMATS["sidecar"].write([Example(JPEG, ("x",), "train", "字" * 95)], new)


def test_a_missing_picture_is_not_found_in_another_folder(tmp_path, monkeypatch):
    picture(tmp_path, "here/images/1.jpg")
    lines(tmp_path / "data/metadata.jsonl", {"file_name": "images/1.jpg", "text": "x"})
    monkeypatch.chdir(tmp_path / "here")
    assert "pictures missing" in [entry.title for entry in check_data("../data").findings]


@pytest.mark.parametrize("box", [[20, 20, -5, 5], [0, 0, float("nan"), 1], ["a", 0, 1, 1]])
def test_boxes_of_coco_are_held_to_what_boxes_are(tmp_path, box):
    picture(tmp_path, "images/1.jpg")
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
    assert check_data(str(tmp_path)).captions == {"": 1}, "captions are kept where boxes are broken"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}/t.csv?image=photo", "names columns but no format; say csv:"),
        ("zip:{}", "'zip' is no format of data on disk; shards, "),
    ],
)
def test_a_format_that_is_forgotten_or_none_is_told(tmp_path, data, message):
    (tmp_path / "t.csv").write_text("photo,caption\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read_data(data.format(tmp_path))


def test_places_that_cannot_be_written_are_told_before_the_work(tmp_path, capsys):
    picture(tmp_path, "in/1.jpg")
    (tmp_path / "in/1.txt").write_text("a dog")
    (tmp_path / "file").write_text("x")
    data, inside = str(tmp_path / "in"), str(tmp_path / "file/x")
    for arguments in (["check", data, "--html", inside], ["show", data, inside], ["convert", data, f"jsonl:{inside}/y"]):
        assert main(arguments) == 1
        assert "cannot be written" in capsys.readouterr().err
    assert main(["show", data, str(tmp_path)]) == 1
    assert "is a folder; name the page in it" in capsys.readouterr().err
    assert main(["show", data, str(tmp_path / "new/page.html")]) == 0


def test_a_check_of_nothing_is_an_error(tmp_path):
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": []}')
    assert main(["check", str(tmp_path)]) == 1


def test_windows_line_ends_and_marks_are_read(tmp_path):
    picture(tmp_path, "1.jpg")
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("file", "caption"), ("1.jpg", "a dog,\r\nsitting"), ("1.jpg", "two")])
    assert read_data(tmp_path)[0].references == ("a dog,\r\nsitting", "two")
