"""Folders as users have them, one row each: equal names, texts next to images, Kaggle. A new report is one more row."""

from __future__ import annotations

import pytest

from corpus import convert, read_data
from tests.layouts import DOG, check_layout, coco, karpathy, table, write
from tests.test_odd_data import JPEG

FLICKR30K = (
    "image_name| comment_number| comment\n"
    'a.jpg| 0| Two " guys , talking .\n'
    'a.jpg| 1|" A man | sits\n'
    'a.jpg| 2| "quoted ""twice"""\n'
    "b.jpg| 4   A dog runs .\n"
)
FLICKR30K_READ = [
    ("a", "train", ('Two " guys , talking .', '" A man | sits', 'quoted "twice"')),
    ("b", "train", ("A dog runs .",)),
]


# Identity: different images of one name or id are different images.
SAME_NAMES = {
    "sidecar, a file name in two splits": (
        {"train/1.jpg": None, "train/1.txt": "a dog", "val/1.jpg": None, "val/1.txt": "a cat", "2.jpg": None, "2.txt": "x"},
        "",
        [("2", "train", ("x",)), ("train/1", "train", DOG), ("val/1", "val", ("a cat",))],
    ),
    "sidecar, two formats of one name": (
        {"a.jpg": None, "a.jpg.txt": "a dog", "a.png": None, "a.png.txt": "a cat"},
        "",
        [("a.jpg", "train", DOG), ("a.png", "train", ("a cat",))],
    ),
    "sidecar, a file name in a folder and above": (
        {"1.jpg": None, "1.txt": "a dog", "train/1.jpg": None, "train/1.txt": "x"},
        "",
        [("1", "train", DOG), ("train/1", "train", ("x",))],
    ),
    "coco, an id in two splits": (
        {
            "annotations/captions_train2017.json": coco(),
            "annotations/captions_val2017.json": coco(caption="x"),
            "train2017/1.jpg": None,
            "val2017/1.jpg": None,
        },
        "",
        [("train/1", "train", DOG), ("val/1", "val", ("x",))],
    ),
    "coco, an id in two files of one split": (
        {"captions_a.json": coco("a.jpg"), "captions_b.json": coco("b.jpg", caption="x"), "a.jpg": None, "b.jpg": None},
        "",
        [("a", "train", DOG), ("b", "train", ("x",))],
    ),
    "karpathy, a name in two folders": (
        {
            "dataset.json": karpathy({"filepath": "x", "filename": "1.jpg"}, {"filepath": "y", "filename": "1.jpg"}),
            "x/1.jpg": None,
            "y/1.jpg": None,
        },
        "",
        [("x/1", "test", DOG), ("y/1", "test", DOG)],
    ),
    "csv, an image_id in two splits": (
        {
            "t.csv": table(("image_id", "file", "caption"), ("7", "train/a.jpg", "a dog"), ("7", "val/a.jpg", "x")),
            "train/a.jpg": None,
            "val/a.jpg": None,
        },
        "",
        [("train/7", "train", DOG), ("val/7", "val", ("x",))],
    ),
    "csv, a bare name in the folders of two splits": (
        {
            "t.csv": table(("file", "caption", "split"), ("1.jpg", "a dog", "Train"), ("1.jpg", "x", "val")),
            "train/1.jpg": None,
            "val/1.jpg": None,
        },
        "",
        [("train/1", "train", DOG), ("val/1", "val", ("x",))],
    ),
    "csv, two files of different folders": (
        {
            "train/c.csv": table(("file", "caption"), ("1.jpg", "a dog")),
            "val/c.csv": table(("file", "caption"), ("1.jpg", "x")),
            "train/1.jpg": None,
            "val/1.jpg": None,
        },
        "",
        [("train/1", "train", DOG), ("val/1", "val", ("x",))],
    ),
    "jsonl, two formats of one name": (
        {
            "metadata.jsonl": '{"file_name": "a.jpg", "text": "a dog"}\n{"file_name": "a.png", "text": "x"}',
            "a.jpg": None,
            "a.png": None,
        },
        "",
        [("a.jpg", "train", DOG), ("a.png", "train", ("x",))],
    ),
    "jsonl, two names of one image are joined": (
        {"metadata.jsonl": '{"file_name": "a.jpg", "text": "a dog"}\n{"file_name": "./a.jpg", "text": "x"}', "a.jpg": None},
        "",
        [("a", "train", ("a dog", "x"))],
    ),
    "webdataset, an image_id in two shards": (
        {
            f"{name}.tar": [("1.jpg", JPEG), ("1.json", '{"caption": "a dog", "image_id": 5}')]
            for name in ("train-0", "val-0", "val-1")
        },
        "",
        [("train-0/5", "train", DOG), ("val-0/5", "val", DOG), ("val-1/5", "val", DOG)],
    ),
    "shards, a key in the shards of two splits": (
        {
            "train-0.tar": [("1.jpg", JPEG)],
            "val-0.tar": [("1.jpg", JPEG)],
            "captions.en.jsonl": "".join(
                f'{{"image": "1", "split": "{split}", "captions": ["{split}"]}}\n' for split in ("train", "val")
            ),
        },
        "",
        [("train/1", "train", ("train",)), ("val/1", "val", ("val",))],
    ),
    "webdataset, shards of one name in the folders of two splits": (
        {"train/0.tar": [("1.jpg", JPEG), ("1.txt", "a dog")], "val/0.tar": [("1.jpg", JPEG), ("1.txt", "x")]},
        "",
        [("train/0/1", "train", DOG), ("val/0/1", "val", ("x",))],
    ),
    "webdataset, shards of one name in two folders": (
        {"x/0.tar": [("1.jpg", JPEG), ("1.txt", "a dog")], "y/0.tar": [("1.jpg", JPEG), ("1.txt", "x")]},
        "",
        [("x/0/0/1", "train", DOG), ("y/0/0/1", "train", ("x",))],
    ),
    "sidecar, packed into another folder": (
        {"d/train/1.jpg": None, "d/train/1.txt": "a dog", "d/val/1.jpg": None, "d/val/1.txt": "x"},
        "",
        [("train/1", "train", DOG), ("val/1", "val", ("x",))],
    ),
    "flickr8k, two formats of one name": (
        {"x.token.txt": "a.jpg#0\ta dog\na.png#0\tx\n", "a.jpg": None, "a.png": None},
        "",
        [("a.jpg", "train", DOG), ("a.png", "train", ("x",))],
    ),
}
# Texts next to images, and their endings.
SIDECARS = {
    "a.jpg.txt": ({"a.jpg": None, "a.jpg.txt": "a dog"}, "", [("a", "train", DOG)]),
    "a.JPG.txt": ({"a.jpg": None, "a.JPG.txt": "a dog"}, "", [("a", "train", DOG)]),
    "A.JPEG and A.jpeg.caption": ({"A.JPEG": None, "A.jpeg.caption": "a dog"}, "", [("A", "train", DOG)]),
    "a.jpg.en.txt has a language": ({"a.jpg": None, "a.jpg.en.txt": "a dog"}, "", [("a", "train", DOG)]),
    "a.png.txt where a.jpg has a text, too": (
        {"a.jpg": None, "a.png": None, "a.png.txt": "a dog"},
        "",
        [("a.jpg", "train", ()), ("a.png", "train", DOG)],
    ),
    "an image that has got another suffix": ({"a.webp": None, "a.jpg.txt": "a dog"}, "", [("a", "train", DOG)]),
    "kohya": ({"10_dog/a.png": None, "10_dog/a.caption": "a dog\n"}, "", [("10_dog/a", "train", DOG)]),
    "kohya, nested and mixed": (
        {"img/10_dog/a.png": None, "img/10_dog/a.caption": "a dog", "img/5_cat/b.png": None, "img/5_cat/b.txt": "x"},
        "",
        [("img/10_dog/a", "train", DOG), ("img/5_cat/b", "train", ("x",))],
    ),
    "a.txt and a.caption": (
        {"a.jpg": None, "a.caption": "a dog\nz", "a.txt": "x\na dog"},
        "",
        [("a", "train", ("x", "a dog", "z"))],
    ),
    "files of operating systems": (
        {
            "a.jpg": None,
            "a.txt": "a dog",
            "._a.jpg": None,
            "._a.txt": "x",
            ".DS_Store": "",
            "__MACOSX/b.jpg": None,
            "Thumbs.db": "",
            ".cache/c.jpg": None,
            ".cache/c.txt": "x",
        },
        "",
        [("a", "train", DOG)],
    ),
}
# Data sets as Kaggle packs them; the folder alone is named.
KAGGLE = {
    "flickr8k": (
        {
            "captions.txt": 'image,caption\na.jpg,A red ball .\na.jpg,"A ball , half hidden ."\nb.jpg,no quotes , here\n',
            "Images/a.jpg": None,
            "Images/b.jpg": None,
        },
        "",
        [("a", "train", ("A red ball .", "A ball , half hidden .")), ("b", "train", ("no quotes , here",))],
    ),
    "flickr8k with lines of the authors in captions.txt": (
        {"captions.txt": "a.jpg#0\ta dog\n", "only folder/a.jpg": None},
        "",
        [("a", "train", DOG)],
    ),
    "flickr8k in a folder": (
        {"flickr8k/captions.txt": "image,caption\na.jpg,a dog\n", "flickr8k/Images/a.jpg": None},
        "",
        [("a", "train", DOG)],
    ),
    "flickr8k with the authors' folders": (
        {
            "Flickr8k_text/Flickr8k.token.txt": "a.jpg#0\ta dog\nb.jpg#0\tx\n",
            "Flickr8k_text/Flickr_8k.trainImages.txt": "a.jpg\n",
            "Flickr8k_text/Flickr_8k.testImages.txt": "b.jpg\n",
            "Flickr8k_text/Flickr8k.lemma.token.txt": "a.jpg#0\tdog\n",
            "Flickr8k_Dataset/Flicker8k_Dataset/a.jpg": None,
            "Flickr8k_Dataset/Flicker8k_Dataset/b.jpg": None,
        },
        "",
        [("a", "train", DOG), ("b", "test", ("x",))],
    ),
    "flickr8k in Flickr_Data": (
        {
            "Flickr_Data/Flickr_Data/Flickr_TextData/Flickr8k.token.txt": "a.jpg#0\ta dog\n",
            "Flickr_Data/Flickr_Data/Images/a.jpg": None,
        },
        "",
        [("a", "train", DOG)],
    ),
    "flickr30k": ({"results.csv": FLICKR30K, "flickr30k_images/a.jpg": None, "flickr30k_images/b.jpg": None}, "", FLICKR30K_READ),
    "flickr30k, nested twice": (
        {
            "flickr30k_images/results.csv": FLICKR30K,
            "flickr30k_images/flickr30k_images/a.jpg": None,
            "flickr30k_images/flickr30k_images/b.jpg": None,
        },
        "",
        FLICKR30K_READ,
    ),
    "flickr30k with captions.txt": (
        {
            "captions.txt": "image_name,comment_number,comment\na.jpg, 0, A man , talking .\n",
            "flickr30k_images/flickr30k_images/a.jpg": None,
        },
        "",
        [("a", "train", ("A man , talking .",))],
    ),
    "coco2017": (
        {
            "coco2017/annotations/captions_val2017.json": coco(),
            "coco2017/annotations/instances_val2017.json": '{"categories": [], "annotations": []}',
            "coco2017/val2017/1.jpg": None,
        },
        "",
        [("1", "val", DOG)],
    ),
    "coco, nested twice": (
        {"annotations_trainval2017/annotations/captions_train2017.json": coco(), "train2017/train2017/1.jpg": None},
        "",
        [("1", "train", DOG)],
    ),
    "coco2014 in images/": (
        {"captions/annotations/captions_val2014.json": coco(), "images/val2014/1.jpg": None},
        "",
        [("1", "val", DOG)],
    ),
}
LAYOUTS = SAME_NAMES | SIDECARS | KAGGLE


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read(name, tmp_path):
    check_layout(tmp_path / "d", *LAYOUTS[name])


@pytest.mark.parametrize("kind", ["coco", "jsonl", "karpathy", "csv", "webdataset", "sidecar"])
def test_images_of_one_name_stay_two_images_in_a_conversion(kind, tmp_path):
    files, _, expected = LAYOUTS["coco, an id in two splits"]
    write(tmp_path / "in", files)
    assert convert(tmp_path / "in", f"{kind}:{tmp_path / 'out'}") == (2, {})
    examples = read_data(tmp_path / "out")
    assert sorted((example.image_id, example.split, example.references) for example in examples) == expected
    assert sorted(example.read() for example in examples) == sorted(
        JPEG + name.encode() for name in files if name.endswith("jpg")
    )
