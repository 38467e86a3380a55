"""Formats of captioned images: writing then reading gives equal examples; files of other programs are read."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import FORMATS, DataError, Example, NamedBox, convert, read_data, stream_data
from corpus.formats.registry import ALL_FEATURES, ANY_SPLIT, BOXES, LANGUAGES, LINE_BREAKS, NO_CAPTIONS
from corpus.formats.writer import NewFolder
from model import Box

LETTERS = st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\r\n\0\ufeff")
BREAK = st.sampled_from(["\n", "\r", "\r\n"])
LINES = st.text(LETTERS, max_size=30).map(str.strip)
CORNERS = st.integers(0, 4000).map(lambda quarters: quarters / 4)
BOX = st.builds(
    lambda x, y, w, h, name: NamedBox(name, Box(x, y, x + w, y + h)),
    CORNERS,
    CORNERS,
    CORNERS,
    CORNERS,
    st.text("abc d", min_size=1),
)
IDS = st.text("abcXYZ019_-. ", min_size=1, max_size=12).filter(lambda text: text.strip(" .") == text)


@st.composite
def lists_of_examples(draw, features):
    """Draw examples that a format with these features supports."""
    texts = LINES.filter(bool)
    if LINE_BREAKS in features:
        texts = st.one_of(texts, st.builds("{}{}{}".format, texts.filter(bool), BREAK, texts.filter(bool)))
    languages = st.sampled_from(["", "en", "zh", "pt-BR"]) if LANGUAGES in features else st.just("")
    caption = st.tuples(languages, texts)
    examples = []
    for image_id in draw(st.lists(IDS, min_size=1, max_size=5, unique_by=lambda text: text.lower())):
        captions = draw(st.lists(caption, min_size=0 if NO_CAPTIONS in features else 1, max_size=4))
        examples.append(
            Example(
                draw(st.sampled_from([b"\x89PNG", b"\xff\xd8\xff", b"RIFF....WEBP"])) + draw(st.binary(max_size=20)),
                tuple(text for _, text in captions),
                draw(st.sampled_from(["train", "val", "test", *(["extra", "set_2"] if ANY_SPLIT in features else [])])),
                image_id,
                tuple(language for language, _ in captions),
                tuple(draw(st.lists(BOX, max_size=3))) if BOXES in features else (),
            )
        )
    return examples


def comparable(examples):
    """Return what must stay equal: the bytes of the image, and the captions in their order within each language."""
    return {
        example.image_id: (
            example.read(),
            example.split,
            sorted(zip(example.languages, example.references, strict=True), key=lambda caption: caption[0]),
            example.objects,
        )
        for example in examples
    }


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_written_examples_are_read_back(kind, data):
    examples = data.draw(lists_of_examples(FORMATS[kind].features))
    with TemporaryDirectory() as folder:
        target = Path(folder) / "data"
        with NewFolder(target) as new:
            try:
                FORMATS[kind].write(examples, new)
            except DataError as error:  # two ids that give the same file name
                assert "another" in str(error)  # noqa: PT017
                return
        for name in (f"{kind}:{target}", str(target)):
            if any(example.references for example in examples) or name.startswith(kind):
                assert comparable(stream_data(name)) == comparable(examples)
        assert [file.name for file in Path(folder).iterdir()] == ["data"]


@pytest.fixture
def all_features(tmp_path):
    """Write three images that need every feature."""
    box = NamedBox("dog", Box(1, 2, 3.5, 4))
    examples = [
        Example(b"\xff\xd8\xff1", ("a dog", "一只狗"), "train", "10", ("en", "zh"), (box,)),
        Example(b"\xff\xd8\xff2", ("a cat\nsits",), "val", "b"),
        Example(b"\xff\xd8\xff3", (), "extra", "c"),
    ]
    with NewFolder(tmp_path / "all") as new:
        FORMATS["jsonl"].write(examples, new)
    return tmp_path / "all"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_conversion_reports_the_features_that_it_loses(kind, all_features, tmp_path):
    unsupported = ALL_FEATURES - FORMATS[kind].features
    target = tmp_path / "out"
    if not unsupported:
        assert convert(all_features, f"{kind}:{target}") == (3, {})
        assert comparable(stream_data(target)) == comparable(stream_data(all_features))
        return
    with pytest.raises(DataError, match=f"{kind} does not support"):
        convert(all_features, f"{kind}:{target}")
    assert not target.exists()
    count, lost = convert(all_features, f"{kind}:{target}", lossy=True)
    assert set(lost) == unsupported
    assert count == (2 if unsupported & {ANY_SPLIT, NO_CAPTIONS} else 3)
    assert {example.image_id for example in stream_data(target)} >= {"10", "b"}


def test_the_docs_list_the_features_of_each_format():
    text = (Path(__file__).parent.parent / "docs/data.md").read_text(encoding="utf-8")
    lines = text.split("## Conversions")[1].split("## ")[0].splitlines()
    columns = (ANY_SPLIT, LANGUAGES, BOXES, NO_CAPTIONS, LINE_BREAKS)
    header, _, *rows = [line for line in lines if line.startswith("|")]
    assert tuple(cell.strip() for cell in header.split("|")[2:7]) == columns
    documented = {
        cells[1]: {name for name, cell in zip(columns, cells[2:7], strict=True) if cell == "yes"} for cells in map(_cells, rows)
    }
    assert documented == {name: set(entry.features) for name, entry in FORMATS.items()}


def _cells(line):
    return [cell.strip() for cell in line.split("|")]


def test_a_failed_conversion_leaves_no_folder(all_features, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        convert(all_features, f"coco:{tmp_path}/full")
    (all_features / "images/b.jpg").unlink()
    with pytest.raises(DataError, match=r"line 2: the image 'images/b\.jpg' is not in"):
        convert(all_features, f"coco:{tmp_path}/new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "full"]
    for target in ("coco", "zip:x", "coco:"):
        with pytest.raises(DataError, match=r"has no (format|folder)"):
            convert(all_features, target)


def test_read_data_selects_the_captions_in_a_language(all_features):
    assert [example.references for example in read_data(all_features, language="en")] == [("a dog",), ("a cat\nsits",)]
    assert next(example.references for example in read_data(all_features, language="zh")) == ("一只狗",)
    assert len(read_data(all_features, language="zh", need_captions=False)) == 3


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff" + name.encode())


def test_imagefolders_of_hugging_face_are_read(tmp_path):
    write_images(tmp_path, "train/0001.png", "validation/sub/0002.png")
    (tmp_path / "train/metadata.jsonl").write_text('{"file_name": "0001.png", "text": "a dog"}\n')
    (tmp_path / "validation/metadata.csv").write_text("file_name,text\nsub/0002.png,a cat\n")
    with pytest.raises(DataError, match=r"may be in several formats \(jsonl: metadata.jsonl, csv: metadata.csv\)"):
        read_data(tmp_path)
    (example,) = stream_data(f"jsonl:{tmp_path}")
    assert (example.split, example.references, example.image_id) == ("train", ("a dog",), "0001")
    (example,) = stream_data(f"csv:{tmp_path}")
    assert (example.split, example.references, example.read()[3:]) == ("val", ("a cat",), b"validation/sub/0002.png")


def test_columns_of_tables_are_recognized_or_named(tmp_path):
    write_images(tmp_path, "images/1.jpg", "images/2.jpg")
    flickr30k = 'image_name| comment_number| comment\n1.jpg| 0| Two men , talking .\n1.jpg| 1| Two " guys\n2.jpg| 0| A cat\n'
    (tmp_path / "results.csv").write_text(flickr30k)
    assert [example.references for example in stream_data(tmp_path / "results.csv")][1] == ("A cat",)
    with (tmp_path / "own.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(
            [("img", "title", "part"), ("1.jpg", 'a "big", dog', "val"), ("1.jpg", "2", "val")]
        )
    with pytest.raises(DataError, match=r"line 1 has no column for captions; it has img, title, part"):
        read_data(tmp_path / "own.tsv")
    (example,) = read_data(f"csv:{tmp_path}/own.tsv?image=img&caption=title&split=part")
    assert (example.references, example.split) == (('a "big", dog', "2"), "val")
    with pytest.raises(DataError, match="has no column 'pic'"):
        read_data(f"csv:{tmp_path}/own.tsv?image=pic")
    with pytest.raises(DataError, match=r"csv has no option 'color'; it has image, caption, split, language, id, boxes"):
        read_data(f"csv:{tmp_path}/own.tsv?color=img")


def test_lists_of_records_with_one_caption_each_are_joined(tmp_path):
    write_images(tmp_path, "val2014/x_1.jpg")
    rows = [{"image": "val2014/x_1.jpg", "caption": text, "image_id": "coco_1"} for text in ("a", "b")]
    (tmp_path / "karpathy_val.json").write_text(json.dumps(rows))
    (example,) = stream_data(tmp_path / "karpathy_val.json")
    assert (example.image_id, example.references, example.split) == ("coco_1", ("a", "b"), "val")


def test_a_karpathy_split_file_is_read(tmp_path):
    write_images(tmp_path, "val2014/COCO_1.jpg", "images/2.jpg")
    images = [
        {"filepath": "val2014", "filename": "COCO_1.jpg", "imgid": 0, "split": "restval", "sentences": [{"raw": "A man . "}]},
        {"filename": "2.jpg", "imgid": 1, "split": "test", "sentences": [{"raw": "b", "tokens": ["b"]}, {"raw": "c"}]},
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    for data in (tmp_path, tmp_path / "dataset_coco.json"):
        examples = [(e.image_id, e.split, e.references) for e in stream_data(data)]
        assert examples == [("COCO_1", "train", ("A man .",)), ("2", "test", ("b", "c"))]


def test_boxes_are_read_from_coco_instances(tmp_path):
    write_images(tmp_path, "val2017/000000000139.jpg")
    (tmp_path / "annotations").mkdir()
    images = [{"id": 139, "file_name": "000000000139.jpg"}]
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 139, "caption": "a clock"}]}
    boxes = {"images": images, "categories": [{"id": 85, "name": "clock"}]}
    boxes["annotations"] = [{"id": 5, "image_id": 139, "category_id": 85, "bbox": [10, 20, 30.5, 40]}]
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(captions))
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(boxes))
    (example,) = stream_data(tmp_path)
    assert (example.split, example.objects) == ("val", (NamedBox("clock", Box(10, 20, 40.5, 60)),))


def test_flickr8k_lists_are_splits(tmp_path):
    write_images(tmp_path, *(f"Flicker8k_Dataset/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg.1")))
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\na.jpg#1\tA # dog\nb.jpg#0\tB\nc.jpg#0\tC\nd.jpg.1#0\tD\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b.jpg\n")
    examples = [(e.image_id, e.split, e.references) for e in stream_data(tmp_path)]
    assert examples[:2] == [("a", "train", ("A dog .", "A # dog")), ("b", "val", ("B",))]
    assert examples[2:] == [("c", "unlisted", ("C",)), ("d.jpg.1", "unlisted", ("D",))]


def test_texts_next_to_images_are_read(tmp_path):
    write_images(tmp_path, "a.jpg", "b.c.png", "test/sub/d.jpg")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.zh.txt").write_text("一\n")
    (tmp_path / "b.c.txt").write_text("three")
    examples = [(e.image_id, e.split, e.references, e.languages) for e in stream_data(tmp_path)]
    assert examples == [
        ("a", "train", ("one", "two", "一"), ("", "", "zh")),
        ("b.c", "train", ("three",), ("",)),
        ("sub/d", "test", (), ()),
    ]


def test_the_output_of_img2dataset_is_read(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "%05d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(3):
            key, text = f"{number:09d}", f"a dog {number}"
            record = {"caption": text, "url": "https://example.org", "key": key, "status": "success", "sha256": ""}
            writer.write({"__key__": key, "jpg": b"\xff\xd8\xff" + bytes([number]), "txt": text, "json": record})
    (tmp_path / "00000_stats.json").write_text("{}")
    for data in (tmp_path, f"{tmp_path}/{{00000..00001}}.tar"):
        examples = list(stream_data(data))
        assert [e.references for e in examples] == [("a dog 0",), ("a dog 1",), ("a dog 2",)]
        assert [e.image_id for e in examples] == ["00000/000000000", "00000/000000001", "00001/000000002"]
        assert [e.read()[3] for e in examples] == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset does not close its shard
def test_webdataset_reads_our_shards(all_features, tmp_path):
    convert(all_features, f"webdataset:{tmp_path}/wds")
    (sample,) = webdataset.WebDataset(str(tmp_path / "wds/train-000000.tar"), shardshuffle=False)
    assert (sample["jpg"], sample["txt"]) == (b"\xff\xd8\xff1", b"a dog")
    assert json.loads(sample["json"])["captions"] == ["a dog", "一只狗"]


def test_the_same_data_gives_the_same_shards(all_features, tmp_path):
    for name in ("one", "two"):
        convert(all_features, f"webdataset:{tmp_path}/{name}")
    assert (tmp_path / "one/train-000000.tar").read_bytes() == (tmp_path / "two/train-000000.tar").read_bytes()


def test_images_in_shards_are_read_on_demand(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("x.jpg", b"\xff\xd8\xff" * 1000), ("x.txt", b"a dog")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (example,) = stream_data(tmp_path)
    assert (example.image.offset, example.image.size) == (512, 3000)
    assert example.read() == b"\xff\xd8\xff" * 1000
    assert replace(example, image=tmp_path / "none").location == str(tmp_path / "none")
