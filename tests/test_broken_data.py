"""Ten kinds of broken files per format: each gives an error that names the file and the record."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile

import pytest

from corpus import FORMATS, DataError, ErrorLog, Example, NamedBox, read_data, stream_data
from corpus.formats import unique_examples
from corpus.formats.writer import NewFolder
from model import Box

VALID = [
    Example(b"\xff\xd8\xff1", ("a dog", "two"), "train", "1", objects=(NamedBox("dog", Box(1, 2, 3, 4)),)),
    Example(b"\xff\xd8\xff2", ("a cat",), "val", "2"),
    Example(b"\xff\xd8\xff3", ("a horse",), "train", "3"),
]


def edit(name, old, new, count=1):
    """Return a function that replaces bytes of a file."""

    def change(folder):
        path = folder / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, count))

    return change


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def truncate(name, share=0.6):
    def change(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def edit_json(name, change_document):
    """Return a function that changes the parsed JSON of a file."""

    def change(folder):
        document = json.loads((folder / name).read_text())
        change_document(document)
        (folder / name).write_text(json.dumps(document))

    return change


def copy(old, new):
    def change(folder):
        (folder / new).parent.mkdir(exist_ok=True)
        shutil.copy(folder / old, folder / new)

    return change


def replace_members(name, *members):
    """Return a function that writes a shard of members (name, bytes)."""

    def change(folder):
        with tarfile.open(folder / name, "w") as archive:
            for member, data in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))

    return change


SPLIT_FILE = "dataset.json"
SHARD = "train-000000.tar"
LINES = "metadata.jsonl"
TRAIN = "annotations/captions_train.json"
VAL = "annotations/captions_val.json"
BOXES = "annotations/instances_train.json"
TOKENS = "Flickr8k.token.txt"
IMAGE = ("a.jpg", b"\xff\xd8\xff")
CASES = {
    "coco": [
        (write(TRAIN, b""), rf"{TRAIN} is not JSON"),
        (truncate(TRAIN), rf"{TRAIN} is not JSON .*truncated"),
        (write(TRAIN, b"[1]"), rf"{TRAIN} is not a COCO captions file: it needs a list 'images' and has list"),
        (write(TRAIN, b'{"images": []}'), rf"{TRAIN} is not a COCO captions file: it needs a list 'annotations'"),
        (write(TRAIN, b'\xff{"images": []}'), rf"{TRAIN}, line 1 is not UTF-8"),
        (edit_json(TRAIN, lambda d: d["images"].append(7)), rf"{TRAIN}: images\[2\] has no 'id'"),
        (edit_json(TRAIN, lambda d: d["annotations"][2].pop("image_id")), rf"{TRAIN}: annotations\[2\] has no 'image_id'"),
        (edit_json(TRAIN, lambda d: d["annotations"][1].update(caption=7)), rf"{TRAIN}: annotations\[1\]: 'caption' is 7"),
        (edit_json(TRAIN, lambda d: d["annotations"][0].update(image_id=99)), rf"{TRAIN}: annotations\[0\] has the image id"),
        (remove("train/3.jpg"), rf"{TRAIN}: images\[1\]: the image '3.jpg' is not in"),
        (edit_json(VAL, lambda d: d["images"].append({"id": 1, "file_name": "2.jpg"})), r"image '1' occurs twice \(.*2.jpg"),
        (edit_json(TRAIN, lambda d: d["images"].append(d["images"][0])), r"image '1' occurs twice"),
        (edit_json(BOXES, lambda d: d["annotations"][0].update(bbox=[1, 2])), rf"{BOXES}: annotations\[0\] has the box \[1, 2\]"),
        (edit_json(BOXES, lambda d: d["categories"].clear()), rf"{BOXES}: annotations\[0\] has the category 1, which is not"),
    ],
    "karpathy": [
        (write(SPLIT_FILE, b""), r"dataset.json is not JSON"),
        (truncate("dataset.json"), r"dataset.json is not JSON .*truncated"),
        (write(SPLIT_FILE, b'"x"'), r"dataset.json is not a Karpathy split file: it needs a list 'images' and has str"),
        (write(SPLIT_FILE, b'{"images": {}}'), r"it needs a list 'images' and has \['images'\]"),
        (edit_json(SPLIT_FILE, lambda d: d["images"].__setitem__(2, [])), r"dataset.json: images\[2\] has no 'filename'"),
        (edit_json(SPLIT_FILE, lambda d: d["images"][1].pop("split")), r"dataset.json: images\[1\] has no 'split'"),
        (edit_json(SPLIT_FILE, lambda d: d["images"][0].update(sentences="x")), r"images\[0\]: 'sentences' is 'x'"),
        (edit_json(SPLIT_FILE, lambda d: d["images"][0]["sentences"][1].pop("raw")), r"images\[0\].*no 'raw'"),
        (edit_json(SPLIT_FILE, lambda d: d["images"][0]["sentences"][0].update(raw="\ud800")), "unpaired surrogate"),
        (remove("images/2.jpg"), r"dataset.json: images\[1\]: the image '2.jpg' is not in"),
        (edit_json(SPLIT_FILE, lambda d: d["images"].append({**d["images"][0], "split": "test"})), "'train' and 'test'"),
        (edit_json(SPLIT_FILE, lambda d: d["images"].append(d["images"][0])), r"image '1' occurs twice"),
    ],
    "csv": [
        (write("captions.csv", b""), r"captions.csv is empty; its first line must name the columns"),
        (edit("captions.csv", b"file_name", b"foo"), r"captions.csv, line 1, has no column for image files"),
        (edit("captions.csv", b"text", b"words"), r"captions.csv, line 1 has no column for captions"),
        (edit("captions.csv", b"language", b"split"), r"captions.csv, line 1 names a column twice"),
        (edit("captions.csv", b"two,,", b"two,"), r"captions.csv, line 3 has 4 cells but there are 5 columns"),
        (edit("captions.csv", b"a cat", b'"a cat'), r"captions.csv, line 4 has an unclosed or single quote"),
        (edit("captions.csv", b"a cat", b'"a "cat"'), r"captions.csv, line 4 .*double their quotes"),
        (edit("captions.csv", b"a cat", b"a \xff cat"), r"captions.csv, line 4 is not UTF-8"),
        (edit("captions.csv", b"images/2.jpg", b""), r"captions.csv, line 4 has no image"),
        (remove("images/2.jpg"), r"captions.csv, line 4: the image 'images/2.jpg' is not in"),
        (edit("captions.csv", b"two,,train", b"two,,val"), r"3: '1' is in 'val', but .*captions.csv, line 2 has it in 'train'"),
        (edit("captions.csv", b"a cat", b"x" * 10_000_001), r"captions.csv, line 4 has a cell of more than"),
    ],
    "jsonl": [
        (write(LINES, b"\n\n"), "has no image;"),
        (truncate(LINES, 0.9), r"metadata.jsonl, line 3 is not JSON"),
        (edit(LINES, b"\n{", b"\n["), r"metadata.jsonl, line 2 is not JSON"),
        (edit(LINES, b"a cat", b"a \xff cat"), r"metadata.jsonl, line 2 is not UTF-8"),
        (lambda f: (f / LINES).write_text('["x"]\n'), r"metadata.jsonl, line 1 is \"\['x'\]\"; it must be an object"),
        (edit(LINES, b"file_name", b"foo"), r"metadata.jsonl, line 1 has no column for image files"),
        (edit(LINES, b'"images/1.jpg"', b"7"), r"metadata.jsonl, line 1: 'file_name' is 7; it must be a string"),
        (edit(LINES, b'["a cat"]', b"{}"), r"metadata.jsonl, line 2: captions are {}; they must be"),
        (edit(LINES, b'"a cat"', b'"a cat", 5'), r"metadata.jsonl, line 2: captions are \['a cat', 5\]"),
        (edit(LINES, b"a cat", b"\\ud800"), r"metadata.jsonl, line 2: a caption has an unpaired surrogate"),
        (remove("images/2.jpg"), r"metadata.jsonl, line 2: the image 'images/2.jpg' is not in"),
        (edit(LINES, b"[[1,", b"[[NaN,"), r"metadata.jsonl, line 1: boxes are .*rows of \[x0, y0, x1, y1, class\]"),
        (edit(LINES, b"[[1,", b"[[9,"), r"metadata.jsonl, line 1: boxes are"),
        (edit(LINES, b"images/2.jpg", b"./images//1.jpg"), r"image '2' is in the splits 'train' and 'val'"),
        (edit(LINES, b'"image_id": "2"', b'"image_id": "1"'), None),
        (edit(LINES, b'"a cat"]', b'"a cat"], "languages": ["en", "zh"]'), r"line 2: languages are \['en', 'zh'\]"),
    ],
    "sidecar": [
        (write("train/1.txt", b"a\n\xff"), r"train/1.txt, line 2 is not UTF-8"),
        (write("train/1.txt", b"\xff\xfea"), r"train/1.txt, line 1 is not UTF-16"),
        (write("train/1.txt", b"a\0b\0\n\0"), r"train/1.txt, line 1 has a NUL character: it may be UTF-16 without"),
        (write("train/1.jpg.bak.txt", b"a"), r"train/1.jpg.bak.txt has no image next to it"),
        (lambda f: (f / "train/1.jpg").rename(f / "train/1.jxl"), r"1.txt is the text of 1.jxl, .* save the image as"),
        (remove("val/2.jpg"), r"val/2.txt has no image next to it"),
        (write("train/9.txt", b"a"), r"train/9.txt has no image next to it"),
        (write("train/1.zh.extra.txt", b"a"), r"train/1.zh.extra.txt has no image next to it"),
        (copy("train/1.jpg", "train/1.png"), r"train/1.jpg and .*train/1.png differ only in their suffix"),
        (write("1.zh.TXT", b"a"), r"1.zh.TXT has no image next to it"),
        (lambda f: [path.unlink() for path in f.rglob("*.jpg")], r"no captions in a known format"),
    ],
    "webdataset": [
        (write(SHARD, b""), r"train-000000.tar cannot be read as a tar shard"),
        (write(SHARD, b"x" * 2000), r"train-000000.tar cannot be read as a tar shard"),
        (truncate(SHARD, 0.1), r"train-000000.tar (is broken near byte|is truncated at byte) \d+"),
        (edit(SHARD, b"000000002.jpg", b"\xff00000002.jpg"), r"train-000000.tar is truncated at byte \d+"),
        (replace_members(SHARD, ("a.json", b"{}")), r"train-000000.tar, sample 'a' has 0 images"),
        (replace_members(SHARD, IMAGE, ("a.png", b"")), r"sample 'a' has 2 images among its members \(jpg, png\)"),
        (replace_members(SHARD, IMAGE, ("a.json", b"{")), r"train-000000.tar, sample 'a': its .json is not JSON"),
        (replace_members(SHARD, IMAGE, ("a.json", b"[]")), r"train-000000.tar, sample 'a': its .json is '\[\]'"),
        (replace_members(SHARD, IMAGE, ("a.txt", b"\xff")), r"train-000000.tar, sample 'a', its .txt, line 1 is not UTF-8"),
        (replace_members(SHARD, IMAGE, ("a.json", b'{"caption": 3}')), r"sample 'a': captions are 3"),
        (replace_members(SHARD, IMAGE, IMAGE), r"a.jpg: duplicate file name in tar file"),
        (replace_members(SHARD, IMAGE, ("a.json", b'{"caption": "x", "boxes": [[1]]}')), r"sample 'a': boxes are"),
        (edit(SHARD, b'"image_id": "3"', b'"image_id": "2"'), None),
    ],
    "shards": [
        (truncate(SHARD, 0.1), r"train-000000.tar (is broken near byte|is truncated at byte) \d+"),
        (write(SHARD, b"\x1f\x8b\x08"), r"train-000000.tar cannot be read as a tar shard; decompress it"),
        (remove(SHARD), r"captions.jsonl, line 1: the image '1' is in none of the shards"),
        (remove(SHARD, "val-000000.tar"), r"has 0 tar shards and 1 captions"),
        (remove("captions.jsonl"), r"has 2 tar shards and 0 captions"),
        (copy(SHARD, "train-000001.tar"), r"line 1: the image '1' is in .*train-000000.tar, member '1.jpg' and .*000001.tar"),
        (truncate("captions.jsonl", 0.9), r"captions.jsonl, line 3 is not JSON"),
        (edit("captions.jsonl", b"a cat", b"\xff"), r"captions.jsonl, line 2 is not UTF-8"),
        (edit("captions.jsonl", b'"image": "2", ', b""), r"captions.jsonl, line 2 has no column for image files"),
        (edit("captions.jsonl", b'["a cat"]', b"5"), r"captions.jsonl, line 2: captions are 5"),
        (edit("captions.jsonl", b'"image": "2"', b'"image": "3"'), r"'3' is in 'train', but .* has it in 'val'"),
        (edit("captions.jsonl", b"[[1,", b"[[null,"), r"captions.jsonl, line 1: boxes are"),
    ],
    "flickr8k": [
        (write(TOKENS, b""), rf"{TOKENS} has no caption"),
        (edit(TOKENS, b"2.jpg#0\t", b"2.jpg\t"), rf"{TOKENS}, line 3 is '2.jpg\\ta cat'; it must be <image>#<number>"),
        (edit(TOKENS, b"2.jpg#0\t", b"2.jpg#x\t"), rf"{TOKENS}, line 3 is"),
        (edit(TOKENS, b"2.jpg#0\ta cat", b"2.jpg#0"), rf"{TOKENS}, line 3 is"),
        (edit(TOKENS, b"2.jpg#0\t", b"#0\t"), rf"{TOKENS}, line 3 is"),
        (edit(TOKENS, b"a cat", b"a \xff cat"), rf"{TOKENS}, line 3 is not UTF-8"),
        (remove("images/2.jpg"), rf"{TOKENS}, line 3: the image '2.jpg' is not in"),
        (write("Flickr_8k.testImages.txt", b"2.jpg\n"), r"testImages.txt, line 1: '2.jpg' is also in the list of 'val'"),
        (write("Flickr_8k.testImages.txt", b"\xff\n"), r"Flickr_8k.testImages.txt, line 1 is not UTF-8"),
        (remove(TOKENS), "no captions in a known format"),
        (copy("images/2.jpg", "images/2.png"), None),
        (lambda f: edit(TOKENS, b"3.jpg", b"2.png")(f) or copy("images/2.jpg", "images/2.png")(f), None),
    ],
}  # fmt: skip


def test_every_format_has_ten_broken_files():
    assert set(CASES) == set(FORMATS)
    assert all(sum(message is not None for _, message in cases) >= 10 for cases in CASES.values())


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [pytest.param(kind, *case, id=f"{kind} {number}") for kind, cases in CASES.items() for number, case in enumerate(cases)],
)
def test_a_broken_file_is_an_error_that_names_the_record(kind, damage, message, tmp_path):
    target = tmp_path / "data"
    with NewFolder(target) as new:
        FORMATS[kind].write(
            [example if kind in ("coco", "jsonl", "shards", "webdataset") else without_boxes(example) for example in VALID], new
        )
    damage(target)
    if message is None:
        assert len(list(stream_data(f"{kind}:{target}"))) == 3
        return
    with pytest.raises(DataError) as error:
        read_data(f"{kind}:{target}")
    assert re.search(message, str(error.value)), str(error.value)

    errors = ErrorLog(keep=True)
    try:
        examples = list(unique_examples(stream_data(f"{kind}:{target}", errors=errors), target, errors))
    except DataError as error:  # reading continues unless the format is unknown
        if not re.search("in a known format|it needs both", str(error)):
            raise
        return
    assert len(examples) <= len(VALID) + 1
    assert errors.messages or message == "has no image;"


def without_boxes(example):
    return Example(example.image, example.references, example.split, example.image_id)
