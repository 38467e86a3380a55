"""Rows of the field report about data: layouts, identities, options, texts and names, tried through the public interfaces."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from corpus import DataError, ErrorLog, open_dataset, read_data, usable_entries
from corpus.__main__ import main as corpus_main
from evaluation.__main__ import main as evaluation_main
from tests.layouts import coco, table, write
from tests.proofs.field.row import Row

_Run = Callable[[Path, Path], tuple[bool, str]]


def _output(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(arguments))
    return status, out.getvalue() + err.getvalue()


def _reads(data: str, *expected: tuple[str, str, tuple[str, ...]]) -> _Run:
    """Return a row that reads data of the report: image ids, splits and captions are as expected, and the check has no errors."""

    def run(folder: Path, scratch: Path) -> tuple[bool, str]:
        spec = data.format(folder)
        examples = [(example.image_id, example.split, example.references) for example in read_data(spec)]
        status, _ = _output(corpus_main, "check", spec, "--json")
        return examples == list(expected) and status == 0, f"{examples}; check exits {status}"

    return run


def _reads_written(files: dict[str, str | bytes | list[tuple[str, str | bytes]] | None], *captions: tuple[str, ...]) -> _Run:
    def run(folder: Path, scratch: Path) -> tuple[bool, str]:
        write(scratch, files)
        references = [example.references for example in read_data(scratch)]
        return references == list(captions), str(references)

    return run


def _true_leak(folder: Path, scratch: Path) -> tuple[bool, str]:
    shutil.copytree(folder / "06_sidecar_same_names", scratch / "d")
    shutil.copy(scratch / "d/train/1.jpg", scratch / "d/val/1.jpg")
    status, text = _output(corpus_main, "check", str(scratch / "d"))
    line = next((line for line in text.splitlines() if line.startswith("ERROR")), text)
    return status == 1 and "identical images in several splits" in line, line


def _results_by_cocoid(folder: Path, scratch: Path) -> tuple[bool, str]:
    data, results = f"karpathy:{folder}/08_karpathy_cocoid?id=cocoid", str(folder / "08_results_by_cocoid.json")
    status, text = _output(evaluation_main, "captions", "--data", data, "--results", results, "--json")
    scores = json.loads(text.splitlines()[-1])["systems"] if status == 0 else text
    return status == 0, str(scores)[:120]


def _unknown_option(folder: Path, scratch: Path) -> tuple[bool, str]:
    try:
        read_data(f"coco:{folder}/07_coco_same_ids?id=cocoid")
    except DataError as error:
        return "coco has no option 'id'" in str(error), str(error).replace(str(folder), "")
    return False, "accepted"


def _unusable_images(folder: Path, scratch: Path) -> tuple[bool, str]:
    rows = [("file", "caption")]
    for number in range(41):
        Image.new("RGB", (70, 70), (number, 0, 0)).save(scratch / f"{number}.png")
        rows.append((f"{number}.png", f"image {number}"))
    (scratch / "0.png").unlink()
    (scratch / "1.png").write_bytes((scratch / "2.png").read_bytes()[:-30])
    (scratch / "t.csv").write_text(table(*rows))
    entries = open_dataset(str(scratch), errors=ErrorLog(keep=True), need_images=False).split("train")
    usable, problems = usable_entries(entries)
    names = [problem.origin.rpartition(", ")[2] for problem in problems]
    return len(usable) == 39 and names == ["line 2", "line 3"], f"{len(usable)} usable, left out: {names}"


def _skipped(folder: Path, scratch: Path) -> tuple[bool, str]:
    write(scratch, {"t.csv": "file,caption\na.png,a dog\na.png,\n", "b.jxl": None, "._a.png": None})
    for name in ("a", "c"):
        Image.new("RGB", (70, 70), "red").save(scratch / f"{name}.png")
    _, text = _output(corpus_main, "check", str(scratch))
    lines = [line for line in text.splitlines() if line.startswith("WARNING")]
    expected = ("captions that are left out: 1", "not read: 1", "no record names: 1")
    return all(any(part in line for line in lines) for part in expected), f"{len(lines)} warnings, with each of {expected}"


_FLICKR30K = 'image_name| comment_number| comment\na.jpg| 0| A " man\na.jpg| 1   A dog\n'

ROWS = [
    Row(
        "06 one file name in two splits",
        "two images",
        _reads("{}/06_sidecar_same_names", ("train/1", "train", ("a dog",)), ("val/1", "val", ("a cat",))),
    ),
    Row(
        "07 one COCO id in two splits",
        "two images",
        _reads("{}/07_coco_same_ids", ("train/1", "train", ("train",)), ("val/1", "val", ("val",))),
    ),
    Row("06 identical pixels in two splits", "an error of the check", _true_leak),
    Row(
        "08 Karpathy's file by cocoid",
        "ids are cocoids",
        _reads(
            "karpathy:{}/08_karpathy_cocoid?id=cocoid",
            ("391895", "test", ("A man with a red helmet on a small moped.",)),
        ),
    ),
    Row("08 results by cocoid", "scored", _results_by_cocoid),
    Row("08 an option that a format does not have", "an error that names its options", _unknown_option),
    Row("09 byte order mark in a shard", "not in the caption", _reads("{}/09_webdataset_txt_bom", ("a/1", "train", ("a dog",)))),
    Row("09 UTF-16 of Windows", "read", _reads_written({"a.jpg": None, "a.txt": "a café".encode("utf-16")}, ("a café",))),
    Row(
        "23 ./ in a shard",
        "ids without ./",
        _reads("{}/23_webdataset_dot_slash", ("a/0001", "train", ("x",)), ("a/0002", "train", ("y",))),
    ),
    Row(
        "23 null captions",
        "no reference",
        _reads_written({"m.jsonl": '{"image": "a.jpg", "text": [null, "", "a dog"]}', "a.jpg": None}, ("a dog",)),
    ),
    Row("10 a.jpg.txt", "the caption of a.jpg", _reads("{}/10_sidecar_name_jpg_txt", ("a", "train", ("x",)))),
    Row(
        "11 Flickr8k of Kaggle",
        "read by its folder",
        _reads("{}/11_flickr8k_kaggle", ("a", "train", ("A red ball on grass .", "A ball , half hidden ."))),
    ),
    Row(
        "11 Flickr30k of Kaggle",
        "read by its folder",
        _reads_written(
            {"x/flickr30k_images/results.csv": _FLICKR30K, "x/flickr30k_images/flickr30k_images/a.jpg": None},
            ('A " man', "A dog"),
        ),
    ),
    Row(
        "11 COCO of Kaggle",
        "read by its folder",
        _reads_written({"coco2017/annotations/captions_train2017.json": coco(), "coco2017/train2017/1.jpg": None}, ("a dog",)),
    ),
    Row("13 kohya's .caption", "read", _reads("{}/13_kohya_caption", ("10_dog/a", "train", ("a dog",)))),
    Row(
        "14 a list as a text",
        "one caption per item",
        _reads("csv:{}/14_flickr30k_hf_csv?caption=raw", ("a", "train", ("A red ball on grass .", "A ball near a fence ."))),
    ),
    Row(
        "14 columns caption_0 and caption_1",
        "two captions",
        _reads_written({"t.csv": "image,caption_0,caption_1\na.jpg,x,y\n", "a.jpg": None}, ("x", "y")),
    ),
    Row(
        "COCO with \\ in file names",
        "read",
        _reads_written({"captions.json": coco("sub\\1.jpg"), "sub/1.jpg": None}, ("a dog",)),
    ),
    Row(
        "a CSV with Filename,Caption",
        "read",
        _reads_written({"t.csv": "Filename,Caption\na.jpg,a dog\n", "a.jpg": None}, ("a dog",)),
    ),
    Row("one missing and one broken image of 41", "39 can be used, the others are named", _unusable_images),
    Row("what the readers leave out", "reported by the check", _skipped),
]
