"""One reader a format, and the one function that tells formats apart."""

from __future__ import annotations

from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.coco import read_coco
from corpus.formats.shards import read_shards

__all__ = ["read_coco", "read_data", "read_shards"]


def read_data(data: str | Path, *, language: str = "en", need_captions: bool = True, need_images: bool = True) -> list[Example]:
    """Read captioned photographs from a file or folder, `FORMAT:PATH` (coco, shards) where it cannot be told.

    A captions json is COCO; a folder with captions*.json is COCO; a JSON-lines file is read beside its tar shards, and a
    folder of shards with the captions of `language`. Raises DataError for anything else.
    """
    examples = _read(str(data), language, need_captions, need_images)
    split_of: dict[str, str] = {}
    for example in examples:
        other = split_of.setdefault(example.image_id, example.split)
        if other != example.split:
            raise DataError(
                f"{data}: image {example.image_id!r} is in the splits {other!r} and {example.split!r}; an image must be in "
                "one of them only, or what is tested on was trained on"
            )
    return examples


def _read(text: str, language: str, need_captions: bool, need_images: bool) -> list[Example]:
    name, _, rest = text.partition(":")
    kind, path = (name, Path(rest)) if name in ("coco", "shards") and rest else ("", Path(text))
    if not path.exists():
        raise DataError(f"{text!r} does not exist; name a captions file or a folder with captions and pictures")
    if path.is_dir():
        return _read_folder(kind, path, language, need_captions, need_images)
    if kind == "coco" or (not kind and path.suffix == ".json"):
        return read_coco(path, need_images=need_images)
    if kind == "shards" or path.suffix == ".jsonl":
        own = path.with_suffix(".tar")
        shards = [own] if own.exists() else sorted(path.parent.glob("*.tar"))
        return read_shards(path, shards, language=language, need_captions=need_captions)
    raise DataError(f"{text!r} is in no format that can be told; say coco:PATH or shards:PATH")


def _read_folder(kind: str, path: Path, language: str, need_captions: bool, need_images: bool) -> list[Example]:
    shards = sorted(path.glob("*.tar"))
    if shards and kind != "coco":
        lines = path / f"captions.{language}.jsonl"
        if not lines.exists():
            found = sorted(path.glob("*.jsonl"))
            if len(found) != 1:
                raise DataError(f"{path} has shards but no captions.{language}.jsonl; it has {[file.name for file in found]}")
            lines = found[0]
        return read_shards(lines, shards, language=language, need_captions=need_captions)
    files = sorted({*path.glob("captions*.json"), *path.glob("annotations/captions*.json")})
    if not files:
        raise DataError(f"{path} has neither tar shards nor captions*.json; name a folder that has one of them")
    return [example for file in files for example in read_coco(file, need_images=need_images)]
