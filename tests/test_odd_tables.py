"""Texts, tables and names of files as programs write them, one row each. A new report is one more row."""

from __future__ import annotations

import pytest

from corpus import FORMATS, Example, read_data
from corpus.formats.cells import caption_cell, captions_in_cell
from corpus.formats.writer import NewFolder
from tests.layouts import DOG, check_layout, coco, karpathy, table
from tests.test_odd_data import JPEG

# Text: one way to decode it, and empty values are no captions.
TEXTS = (
    {
        f"{encoding}: {name}": ({**files, name: text.encode(encoding)}, "", [(image_id, "train", ("é dog",))])
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
        for name, text, files, image_id in (
            ("a.txt", "é dog\r\n", {"a.jpg": None}, "a"),
            ("a.caption", "é dog", {"a.jpg": None}, "a"),
            ("t.csv", table(("file", "caption"), ("a.jpg", "é dog")), {"a.jpg": None}, "a"),
            ("m.jsonl", '{"file_name": "a.jpg", "text": "é dog"}\n', {"a.jpg": None}, "a"),
            ("captions.json", coco(caption="é dog"), {"1.jpg": None}, "1"),
            (
                "dataset.json",
                karpathy({"filename": "a.jpg", "split": "train", "sentences": [{"raw": "é dog"}]}),
                {"a.jpg": None},
                "a",
            ),
            ("x.token.txt", "a.jpg#0\té dog\r\n", {"a.jpg": None}, "a"),
        )
    }
    | {
        f"{encoding}: a text in a shard": (
            {"s.tar": [("a.jpg", JPEG), (name, text.encode(encoding))]},
            "",
            [("s/a", "train", ("é dog",))],
        )
        for encoding in ("utf-8-sig", "utf-16")
        for name, text in (("a.txt", "é dog"), ("a.json", '{"caption": "é dog"}'), ("a.caption", "é dog\n"))
    }
    | {
        "shard with ./ before the names, and files of macOS": (
            {
                "s.tar": [
                    ("./x/0001.jpg", JPEG),
                    ("./x/0001.txt", "a dog"),
                    ("./x/._0001.jpg", b"junk"),
                    ("__MACOSX/x/1.jpg", b""),
                    (".DS_Store", b""),
                ]
            },
            "",
            [("s/x/0001", "train", DOG)],
        ),
        "a null caption of img2dataset": (
            {
                "s.tar": [
                    ("1.jpg", JPEG),
                    ("1.txt", ""),
                    ("1.json", '{"caption": null}'),
                    ("2.jpg", JPEG),
                    ("2.json", '{"caption": NaN}'),
                ]
            },
            "",
            [("s/1", "train", ()), ("s/2", "train", ())],
        ),
        "null, NaN and empty texts in json lines": (
            {
                "m.jsonl": "\n".join(
                    f'{{"file_name": "a.jpg", "text": {value}}}' for value in ("null", "NaN", '""', '[null, "", " ", "a dog"]')
                ),
                "a.jpg": None,
            },
            "",
            [("a", "train", DOG)],
        ),
        "null, nan and empty cells": (
            {
                "t.csv": table(
                    ("file", "caption"), *((f"{n}.jpg", text) for n, text in enumerate(("null", "nan", "", " ", "None", "[]")))
                ),
                **{f"{n}.jpg": None for n in range(6)},
            },
            "",
            [(str(n), "train", ()) for n in range(6)],
        ),
        "null captions in COCO and Karpathy's file": (
            {"captions.json": coco(caption=None), "1.jpg": None},
            "",
            [("1", "train", ())],
        ),
        "a null sentence": (
            {
                "dataset.json": karpathy({"filename": "a.jpg", "sentences": [{"raw": None}, {"raw": "a dog"}, {"raw": ""}]}),
                "a.jpg": None,
            },
            "",
            [("a", "test", DOG)],
        ),
        "an empty text next to an image": (
            {"a.jpg": None, "a.txt": " \n", "b.jpg": None, "b.txt": "a dog"},
            "",
            [("a", "train", ()), ("b", "train", DOG)],
        ),
    }
)
# Tables: their headers, delimiters, lists in cells, several columns of captions; quirks of Excel.
TABLES = {
    "Filename,Caption": ({"t.csv": table(("Filename", "Caption"), ("a.jpg", "a dog")), "a.jpg": None}, "", [("a", "train", DOG)]),
    "spaces and BOM": ({"t.csv": "\ufeff Image Path , CAPTION \na.jpg,a dog\n", "a.jpg": None}, "", [("a", "train", DOG)]),
    "img;raw, .TXT of Excel": (
        {"captions.txt": table(("IMG", "Description"), ("a.jpg", "a dog"), delimiter="\t").encode("utf-16"), "a.jpg": None},
        "",
        [("a", "train", DOG)],
    ),
    "upper-case suffix of the table": (
        {"T.CSV": table(("file", "text"), ("a.jpg", "a dog")), "a.jpg": None},
        "",
        [("a", "train", DOG)],
    ),
    "named, in another case": (
        {"t.csv": table(("Asset", "Title", "Part"), ("a.jpg", "a dog", "TEST")), "a.jpg": None},
        "csv:{}?image=asset&caption=TITLE&split=part",
        [("a", "test", DOG)],
    ),
    "sep=; and empty columns of Excel": (
        {"t.csv": "sep=;\r\nfile;caption;;\r\na.jpg;a dog;;\r\n;;;\r\nb.jpg;x\r\n", "a.jpg": None, "b.jpg": None},
        "",
        [("a", "train", DOG), ("b", "train", ("x",))],
    ),
    "the index of pandas": ({"t.csv": ",file,caption\n0,a.jpg,a dog\n", "a.jpg": None}, "", [("a", "train", DOG)]),
    "line ends of old Macintosh programs": ({"t.csv": "file,caption\ra.jpg,a dog\r", "a.jpg": None}, "", [("a", "train", DOG)]),
    "lists as texts, with splits": (
        {
            "f.csv": 'raw,sentids,split,filename,img_id\n"[""A ball ."", ""A \'fence\'""]","[0, 1]",train,a.jpg,0\n'
            '"[\'x\', ""y\'s""]",[2],test,b.jpg,1\n[sic] a dog,[3],val,c.jpg,2\n',
            "a.jpg": None,
            "b.jpg": None,
            "c.jpg": None,
        },
        "csv:{}?caption=raw",
        [("a", "train", ("A ball .", "A 'fence'")), ("b", "test", ("x", "y's")), ("c", "val", ("[sic] a dog",))],
    ),
    "a list as a text in json lines": (
        {"m.jsonl": '{"image": "a.jpg", "caption": "[\\"a dog\\", \\"x\\"]"}', "a.jpg": None},
        "",
        [("a", "train", ("a dog", "x"))],
    ),
    "caption_0, caption_1, …": (
        {"t.csv": table(("image", "caption_10", "caption_2", "caption_0"), ("a.jpg", "z", "x", "a dog")), "a.jpg": None},
        "",
        [("a", "train", ("a dog", "x", "z"))],
    ),
    "caption 1, caption2": (
        {"t.csv": table(("image", "Caption 1", "caption2"), ("a.jpg", "a dog", "x")), "a.jpg": None},
        "",
        [("a", "train", ("a dog", "x"))],
    ),
}
# Names of image files, as other systems write them.
NAMES = {
    "coco with \\": ({"captions.json": coco("train\\x\\1.jpg"), "train/x/1.jpg": None}, "", [("1", "train", DOG)]),
    "csv with \\": (
        {"t.csv": table(("file", "caption"), ("sub\\a.jpg", "a dog")), "sub/a.jpg": None},
        "",
        [("sub/a", "train", DOG)],
    ),
    "jsonl with \\": (
        {"m.jsonl": '{"image": ".\\\\sub\\\\a.jpg", "caption": "a dog"}', "sub/a.jpg": None},
        "",
        [("sub/a", "train", DOG)],
    ),
    "karpathy with \\": (
        {"dataset.json": karpathy({"filepath": "x\\y", "filename": "a.jpg"}), "x/y/a.jpg": None},
        "",
        [("a", "test", DOG)],
    ),
    "a path of another machine": (
        {
            "t.csv": table(("file", "caption"), ("C:\\data\\images\\a.jpg", "a dog"), ("/content/images/b.jpg", "x")),
            "images/a.jpg": None,
            "b.jpg": None,
        },
        "",
        [("C:/data/images/a", "train", DOG), ("/content/images/b", "train", ("x",))],
    ),
    "case of the suffix": ({"t.csv": table(("file", "caption"), ("a.JPG", "a dog")), "a.jpg": None}, "", [("a", "train", DOG)]),
    "accents, composed and decomposed": (
        {"t.csv": table(("file", "caption"), ("caf\u00e9.jpg", "a dog")), "cafe\u0301.jpg": None},
        "",
        [("caf\u00e9", "train", DOG)],
    ),
    "karpathy by cocoid": (
        {"dataset.json": karpathy({"filename": "a.jpg", "cocoid": 391895}), "a.jpg": None},
        "karpathy:{}?id=cocoid",
        [("391895", "test", DOG)],
    ),
    "webdataset by a field": (
        {"s.tar": [("1.jpg", JPEG), ("1.json", '{"uid": "u7", "alt": "a dog", "caption": "x"}')]},
        "webdataset:{}?id=uid&caption=alt",
        [("u7", "train", DOG)],
    ),
}
TABLES |= TEXTS | NAMES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_or_text_is_read(name, tmp_path):
    check_layout(tmp_path / "d", *TABLES[name])


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['it''s', \"b\"]", ["it", "s", "b"]),
        (r"['a \'quoted\' dog', 'line\nbreak', 'caf\xe9']", ["a 'quoted' dog", "line\nbreak", "caf\xe9"]),
        ("['a dog'\n 'a cat']", ["a dog", "a cat"]),
        ('["a", null, NaN]', ["a", None, None]),
        ("['a', None, nan]", ["a", None, None]),
        ("[]", []),
        ("nan", [None]),
        ("[sic] a dog", ["[sic] a dog"]),
        ("[a dog]", ["[a dog]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("['a'] and ['b']", ["['a'] and ['b']"]),
        ("['a", ["['a"]),
    ],
)
def test_a_cell_with_a_list_has_several_captions(cell, captions):
    assert captions_in_cell(cell) == captions
    assert captions_in_cell(caption_cell(cell)) == [cell], "a caption that looks like a list is read back"


@pytest.mark.parametrize("caption", ['["a", "b"]', "nan", "[]"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "webdataset"])
def test_a_caption_that_looks_like_a_list_or_an_empty_value_is_written_so_that_it_is_read_back(kind, caption, tmp_path):
    with NewFolder(tmp_path / "out") as new:
        FORMATS[kind].write([Example(JPEG, (caption,), "train", "a")], new)
    assert [example.references for example in read_data(f"{kind}:{tmp_path / 'out'}")] == [(caption,)]
