"""The formats by name, with the features and the options that each supports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.example import Example
from corpus.formats.coco import read_coco, write_coco
from corpus.formats.columns import COLUMNS
from corpus.formats.csv_files import read_csv, write_csv
from corpus.formats.flickr8k import read_flickr8k, write_flickr8k
from corpus.formats.json_lines import read_json_lines, write_json_lines
from corpus.formats.karpathy import read_karpathy, write_karpathy
from corpus.formats.read_options import ReadOptions
from corpus.formats.shards import read_shards, write_shards
from corpus.formats.sidecar import read_sidecar, write_sidecar
from corpus.formats.webdataset_samples import read_samples, write_samples
from corpus.formats.writer import NewFolder

# Features that only some formats support. Every format supports images, ids and captions of one line.
ANY_SPLIT, LANGUAGES, BOXES = "any split", "languages", "boxes"
NO_CAPTIONS, LINE_BREAKS = "images without captions", "line breaks"
ALL_FEATURES = frozenset({ANY_SPLIT, LANGUAGES, BOXES, NO_CAPTIONS, LINE_BREAKS})


_FIELDS = tuple(COLUMNS)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of captioned images. A folder has the format if one of the `patterns` matches a file in it."""

    name: str
    read: Callable[[list[Path], ReadOptions], Iterator[Example]]  # reads the files that `detect_format` returned
    write: Callable[[Iterable[Example], NewFolder], None]
    features: frozenset[str]
    patterns: tuple[str, ...]
    options: tuple[str, ...] = ()  # of FORMAT:PATH?OPTION=NAME; the value is the data's name for a field


FORMATS = {
    entry.name: entry
    for entry in (
        Format("shards", read_shards, write_shards, ALL_FEATURES, ()),
        Format(
            "webdataset", read_samples, write_samples, ALL_FEATURES, ("*.tar",), options=("caption", "split", "language", "id")
        ),
        Format(
            "jsonl",
            read_json_lines,
            write_json_lines,
            ALL_FEATURES,
            ("metadata.jsonl", "*/metadata.jsonl", "*.jsonl", "*.ndjson"),
            options=_FIELDS,
        ),
        Format("coco", read_coco, write_coco, ALL_FEATURES, ("captions*.json", "annotations/captions*.json")),
        Format("karpathy", read_karpathy, write_karpathy, ALL_FEATURES - {BOXES}, ("dataset*.json",), options=("id",)),
        Format(
            "csv",
            read_csv,
            write_csv,
            frozenset({ANY_SPLIT, LANGUAGES, NO_CAPTIONS, LINE_BREAKS}),
            ("metadata.csv", "*/metadata.csv", "*.csv", "*.tsv", "*caption*.txt", "*result*.txt"),
            options=_FIELDS,
        ),
        Format(
            "flickr8k", read_flickr8k, write_flickr8k, frozenset(), ("*token.txt", "*.token", "*caption*.txt", "*result*.txt")
        ),
        Format("sidecar", read_sidecar, write_sidecar, frozenset({LANGUAGES, NO_CAPTIONS}), ()),
    )
}
