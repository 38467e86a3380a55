"""Small data sets as files, for the tests of odd inputs: texts, images and shards."""

from __future__ import annotations

import json

from corpus import read_data
from tests.test_odd_data import JPEG, write_shard

DOG = ("a dog",)


def coco(name="1.jpg", image_id=1, caption="a dog"):
    annotation = {"id": 1, "image_id": image_id, "caption": caption}
    return json.dumps({"images": [{"id": image_id, "file_name": name}], "annotations": [annotation]})


def karpathy(*records):
    images = [{"split": "test", "sentences": [{"raw": "a dog"}], **record} for record in records]
    return json.dumps({"images": images})


def table(*rows, delimiter=","):
    return "\r\n".join(delimiter.join(row) for row in rows) + "\r\n"


def write(folder, files):
    """Write files: texts, bytes, lists of members of a shard; None is an image."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            write_shard(path, *((member, data.encode() if isinstance(data, str) else data) for member, data in content))
        else:
            path.write_bytes(
                JPEG + name.encode() if content is None else content if isinstance(content, bytes) else content.encode()
            )


def check_layout(folder, files, data, expected):
    """Write the files, read `data`, and compare image ids, splits and captions."""
    write(folder, files)
    examples = read_data(data.format(folder) if data else str(folder), need_captions=False)
    assert sorted((example.image_id, example.split, example.references) for example in examples) == sorted(expected)
    assert all(example.read() for example in examples)
