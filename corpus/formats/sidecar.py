"""A folder of pictures with a text file beside each: a caption a line; `a.zh.txt` holds a.jpg's captions in Chinese.

Folders train, val and test (or validation, valid, dev) are splits; any other folder belongs to the image id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import LANGUAGE, PICTURES, Reading, split_name, text_lines
from corpus.formats.writing import NewFolder, numbered

SPLITS = ("train", "val", "test")
_ASIDE = ("readme", "license", "license")  # texts that are about the folder


def read_sidecar(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read folders of pictures and texts. A text without its picture is a fault."""
    return chain.from_iterable(_read(path, reading) for path in paths)


def write_sidecar(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write a folder a split, and beside each picture one text a language."""
    for number, example in numbered(examples):
        if LANGUAGE.fullmatch(Path(example.image_id).suffix[1:]):
            raise DataError(f"the image id {example.image_id!r} ends like a language; convert to another format, such as jsonl")
        name = folder.picture(example, number, example.split, by_id=True)
        stem = name[: -len(Path(name).suffix)]
        told: defaultdict[str, list[str]] = defaultdict(list)
        for text, language in zip(example.references, example.languages, strict=True):
            told[language].append(text)
        for language, texts in told.items():
            with folder.open(f"{stem}.{language}.txt" if language else f"{stem}.txt") as file:
                file.writelines(f"{text}\n" for text in texts)


def _read(root: Path, reading: Reading) -> Iterator[Example]:
    visible = (path for path in root.rglob("*") if not any(part.startswith(".") for part in path.relative_to(root).parts))
    files = sorted(path for path in visible if path.is_file())
    pictures = {_stem(path): path for path in files if path.suffix.lower() in PICTURES}
    texts: defaultdict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() == ".txt" and path.stem.lower() not in _ASIDE:
            with reading.faults:
                picture, language = _owner(path, pictures, reading)
                texts[picture].append((language, path))
    seen: dict[tuple[str, str], Path] = {}
    for path in (path for path in files if path.suffix.lower() in PICTURES):
        example = None
        with reading.faults:
            example = _example(root, path, sorted(texts[path]), reading)
            other = seen.setdefault((example.split, example.image_id), path)
            if other != path:
                raise DataError(
                    f"{path} and {other} have one name but for the ending; one text cannot belong to both: rename one"
                )
        if example is not None:
            yield example


def _stem(path: Path) -> Path:
    return path.with_name(path.name[: -len(path.suffix)])


def _owner(path: Path, pictures: dict[Path, Path], reading: Reading) -> tuple[Path, str]:
    """Return the picture that a text is about, and its language."""
    whole = _stem(path)
    if whole in pictures:
        return pictures[whole], ""
    if LANGUAGE.fullmatch(whole.suffix[1:]) and _stem(whole) in pictures:
        return pictures[_stem(whole)], whole.suffix[1:]
    raise DataError(f"{path} has no picture beside it ({whole.name}.jpg, …); put the picture there")


def _example(root: Path, path: Path, texts: list[tuple[str, Path]], reading: Reading) -> Example:
    parts = path.relative_to(root).parts
    split = split_name(parts[0]) if len(parts) > 1 else ""
    inside = parts[1:] if split in SPLITS else parts
    references, languages = [], []
    for language, text in texts:
        lines = [line.strip() for _, line in text_lines(text, reading.faults) if line.strip()]
        if not lines:
            raise DataError(f"{text} is empty; a caption stands on a line of it")
        references += lines
        languages += [language] * len(lines)
    image_id = "/".join((*inside[:-1], _stem(path).name))
    return Example(path, tuple(references), split if split in SPLITS else "train", image_id, tuple(languages), where=str(path))
