"""What the embedded checkpoint is trained on: folders, detections, and texts without the images of the evaluation."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import DataError, normalize_caption
from evaluation import coco_synonyms
from training.embedded.weak import Detection, Text, excluded, parse_text
from training.regions import read_detections

_WORDS = range(4, 25)  # of a caption that is used as text


@dataclass(frozen=True, slots=True)
class EmbeddedData:
    """The data folder (docs/checkpoints.md describes it) and the file of captions without images."""

    folder: Path
    captions: Path  # COCO captions, json or json.gz

    @property
    def flickr8k(self) -> Path:
        """Photographs with human captions in four languages."""
        return self.folder / "flickr8k"

    @property
    def pascal(self) -> Path:
        """Photographs with human captions."""
        return self.folder / "pascal1k"

    @property
    def unlabelled(self) -> Path:
        """Photographs without captions, in tar shards."""
        return self.folder / "coco_unlabelled"

    @property
    def coco(self) -> str:
        """Photographs with human captions and boxes, to be measured on: nothing is trained or chosen on them."""
        return f"shards:{self.folder / 'coco' / 'photographs.jsonl'}"

    @property
    def detector(self) -> Path:
        """The detector's weights."""
        return self.folder / "weights" / "efficientdet-lite2.tflite"

    def detections(self, name: str) -> Path:
        """The file of what the detector sees in the images of a folder."""
        return self.folder / "detections" / f"{name}.jsonl.gz"

    def texts(self) -> list[Text]:
        """Return the captions of photographs that no evaluation uses. Raises DataError."""
        evaluation = set((self.folder / "evaluation_ids.txt").read_text(encoding="utf-8").split())
        captions: dict[str, list[str]] = defaultdict(list)
        try:
            with gzip.open(self.captions, "rt") if self.captions.suffix == ".gz" else self.captions.open() as file:
                for annotation in json.load(file)["annotations"]:
                    captions[str(annotation["image_id"])].append(normalize_caption(annotation["caption"]))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.captions} has no COCO captions that can be read ({error})") from error
        synonyms = coco_synonyms()
        return [
            parse_text(text, image, synonyms)
            for image, texts in excluded(captions, evaluation).items()
            for text in texts
            if len(text.split()) in _WORDS
        ]

    def unlabelled_detections(self) -> dict[str, list[Detection]]:
        """Return what the detector sees in the photographs without captions."""
        boxes = read_detections(self.detections("coco_unlabelled"))
        return {image: [(box.x0, box.y0, box.x1, box.y1, box.name, box.score) for box in own] for image, own in boxes.items()}


def write_weak(folder: Path, shards: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Write a folder of captioned images: links to the shards, and captions.en.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards.glob("*.tar"):
        link = folder / shard.name
        link.unlink(missing_ok=True)
        link.symlink_to(shard.resolve())
    lines = [
        json.dumps({"image": image, "split": "train", "captions": list(texts)}, ensure_ascii=False)
        for image, texts in captions.items()
        if texts
    ]
    partial = folder / "captions.partial"
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(folder / "captions.en.jsonl")
