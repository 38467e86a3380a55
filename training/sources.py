"""The data of a run: what is trained on, what is held out for validation, and what is left out because it cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus import CaptionDataset, CaptionedImage, DataError, ErrorLog, is_synthetic, open_dataset, usable_entries
from training.config import TrainConfig
from training.split import hold_out, separate


@dataclass(frozen=True, slots=True)
class Source:
    """One --data of a run. The val split of `dataset` is validated on, whether it was held out or has its own."""

    dataset: CaptionDataset
    held_out: tuple[str, ...] = ()  # ids of validation images that the data has in its train split
    left_out: tuple[str, ...] = ()  # ids of images that cannot be used
    problems: tuple[str, ...] = field(default=(), compare=False)  # a message for each record that is left out

    @property
    def name(self) -> str:
        return self.dataset.name

    @property
    def train(self) -> list[CaptionedImage]:
        return self.dataset.split("train")

    @property
    def validation(self) -> list[CaptionedImage]:
        return self.dataset.split("val")

    @property
    def digest(self) -> str:
        """Changes when the images or captions of training or validation do."""
        text = [
            [(entry.image_id, entry.captions, *entry.translations) for entry in part] for part in (self.train, self.validation)
        ]
        return hashlib.sha256(repr(text).encode()).hexdigest()


def open_sources(config: TrainConfig, stored: Sequence[dict[str, Any]] = ()) -> list[Source]:
    """Open the data of a run. With --no-check, records and images that cannot be used are left out.

    A resumed run passes what its state has `stored` (see `as_state`), so that it continues with the same images. Raises
    DataError if nothing can be trained on, or if a resumed run's data has changed.
    """
    if stored and len(stored) != len(config.data):
        raise DataError(f"the state of {config.run} has {len(stored)} sources, --data names {len(config.data)}; start a new run")
    return [_open(config, data, stored[number] if stored else None) for number, data in enumerate(config.data)]


def as_state(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return what a resumed run needs to continue with the same images."""
    return [{"held_out": list(s.held_out), "left_out": list(s.left_out), "digest": s.digest} for s in sources]


def file_digests(config: TrainConfig) -> dict[str, str]:
    """Return a digest of every other file that a run reads, by its path: --text and --detections."""
    names = [config.text] if config.text else []
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (*names, *config.detections)}


def check_files(config: TrainConfig, stored: dict[str, str]) -> dict[str, str]:
    """Return the digests of the files of a resumed run. Raises DataError if one has changed since it was started."""
    digests = file_digests(config)
    for name, digest in digests.items():
        if stored.get(name, digest) != digest:
            raise DataError(
                f"{name} has changed since {config.run} was started; restore it, or start a new run from its weights: "
                f"--init {Path(config.run) / 'last'}"
            )
    return digests


def write_validation_ids(run: Path, sources: Sequence[Source]) -> None:
    """Write RUN/validation_ids.txt, the ids that were held out of the first source, one per line; others have a number."""
    for number, source in enumerate(sources):
        if source.held_out:
            (run / validation_ids_name(number)).write_text("".join(f"{name}\n" for name in source.held_out), encoding="utf-8")


def validation_ids_name(number: int) -> str:
    """Return the name of the file with the held-out ids of source `number`."""
    return f"validation_ids_{number + 1}.txt" if number else "validation_ids.txt"


def _open(config: TrainConfig, data: str, stored: dict[str, Any] | None) -> Source:
    is_tolerant = not config.check and not is_synthetic(data)
    errors = ErrorLog(keep=True) if is_tolerant else None
    dataset = open_dataset(
        data,
        language=config.language,
        more_languages=config.more_languages,
        seed=config.seed,
        errors=errors,
        need_images=not is_tolerant,
    )
    splits = {name: dataset.split(name) for name in ("train", "val")}
    left_out: tuple[str, ...] = tuple(stored["left_out"]) if stored else ()
    problems = list(errors.messages) if errors else []
    if is_tolerant and not stored:
        unusable: list[str] = []
        for name, entries in splits.items():
            splits[name], image_problems = usable_entries(entries)
            problems += [problem.message for problem in image_problems]
            usable_ids = {entry.image_id for entry in splits[name]}
            unusable += [entry.image_id for entry in entries if entry.image_id not in usable_ids]
        left_out = tuple(unusable)
    else:
        splits = {name: separate(entries, set(left_out))[0] for name, entries in splits.items()}
    if not splits["train"]:
        listed = "".join(f"\n    {problem}" for problem in problems[:5])
        raise DataError(f"{data!r} has no usable image to train on; {len(problems)} records cannot be used, among them:{listed}")
    held_out: list[CaptionedImage] = []
    if stored:
        splits["train"], held_out = separate(splits["train"], set(stored["held_out"]))
    elif not splits["val"]:
        splits["train"], held_out = hold_out(splits["train"], config.val_share, config.seed, config.eval_images)
    splits["val"] = splits["val"] or held_out
    ids = tuple(entry.image_id for entry in held_out)
    source = Source(CaptionDataset(dataset.name, splits), ids, left_out, tuple(problems))
    if stored and source.digest != stored["digest"]:
        raise DataError(
            f"{data!r} has other images or captions than when {config.run} was started; restore them, or start a new run from "
            f"its weights: --init {Path(config.run) / 'last'}"
        )
    return source
