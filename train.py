"""Train a captioner: teacher forcing on captioned pictures, validated by the captions that it writes.

    python train.py --data FOLDER --data scenes:12000 --run runs/first
    python train.py --run runs/first --resume

What the frozen part of the encoder gives is computed once; a step is then: kept features -> the rest of the encoder ->
decoder -> cross-entropy of the real targets. RUN/best and RUN/last are checkpoint folders of the averaged weights.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import dataclasses
import random
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from corpus import Captioned, Source, open_source
from evaluation import CaptionScores, score_captions
from model import (
    SHARD_BYTES,
    CaptionerError,
    CaptionTokenizer,
    choose_precision,
    pinned,
    save_checkpoint,
    use_threads,
)
from training import (
    Batch,
    FeatureCache,
    Progress,
    TrainConfig,
    TrainingSource,
    WeightAverage,
    build_network,
    build_optimiser,
    cached_features,
    caption_loss,
    card_text,
    check_sources,
    foreign_file,
    frozen_part,
    greedy_captions,
    load_state,
    parse_arguments,
    rate_factor,
    restored_config,
    save_state,
)

FEW_DISTINCT = 0.1  # below this share of distinct captions a network has most likely learnt one caption for all pictures


class Trainer:
    """One run: its data, its network, and where it stands."""

    def __init__(self, config: TrainConfig, tokenizer: CaptionTokenizer | None = None) -> None:
        """Open the data and build the network; a run that is resumed brings the tokenizer that it began with."""
        self.config = config
        self.run = Path(config.run)
        self.threads = use_threads(config.threads or None)
        precision = choose_precision(config.dtype)
        self.dtype = precision.dtype
        print(f"threads {self.threads}, {precision.reason}")
        torch.manual_seed(config.seed)
        self.sources = [open_source(data, language=config.language, seed=config.seed) for data in config.data]
        self.network, self.tokenizer = build_network(config, self.sources, tokenizer)
        self.frozen = frozen_part(self.network, config)
        if (module := self.frozen.module(self.network.encoder)) is not None:
            module.requires_grad_(False)
        self.average = WeightAverage(self.network, config.average)
        self.optimiser = build_optimiser(self.network, config)
        self.progress = Progress()
        self.pictures = 0  # that an epoch goes through, over all sources

    def prepare(self, most: int | None = None) -> None:
        """Cache what never changes and tokenise the captions; `most` pictures of each source where it is given."""
        config = self.config
        self.train_sources: list[TrainingSource] = []
        self.validation: list[tuple[str, list[Captioned], FeatureCache | None]] = []
        for source in self.sources:
            entries = source.split("train")
            self.pictures += min(len(entries), config.epoch_pictures or len(entries))
            entries = entries[:most]
            views = config.views if entries[0].may_flip else 1
            self.train_sources.append(
                TrainingSource(
                    entries,
                    self.tokenizer,
                    self.network.config.image,
                    self.network.config.decoder,
                    self._cache(source, entries, views),
                    views=views,
                    most_captions=config.captions,
                    most_tokens=config.longest,
                    epoch_pictures=config.epoch_pictures,
                    shuffle_pictures=config.shuffle_pictures,
                )
            )
            held_out = source.split("val")[: config.validate]
            if held_out and most is None:
                self.validation.append((source.name, held_out, self._cache(source, held_out, 1)))

    def train(self) -> None:
        """Go through the epochs from where the run stands."""
        config, progress = self.config, self.progress
        total = self.steps
        while not progress.finished:
            plan = self.plan(progress.epoch)
            with tqdm(plan[progress.batch :], desc=f"epoch {progress.epoch + 1}", unit="step", mininterval=5) as bar:
                mean = None
                for number, indices in bar:
                    dice = random.Random(f"batch {config.seed} {progress.step}")
                    batch = self.train_sources[number].batch(indices, dice)
                    loss = self.step(batch)
                    mean = loss if mean is None else 0.98 * mean + 0.02 * loss
                    bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                    progress.batch += 1
                    progress.step += 1
                    if progress.step >= total:
                        break
                    if progress.step % config.checkpoint_every == 0:
                        self.save_state()
            if progress.step >= total or progress.batch >= len(plan):
                progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.finished = progress.step >= total
            if progress.finished or progress.epoch % config.validate_every == 0:
                self.validate()
            self.save_checkpoint("last")
            self.save_state()

    def step(self, batch: Batch) -> float:
        """One step of the optimiser; returns the loss in nats a token."""
        config, network = self.config, self.network
        network.train()
        if (module := self.frozen.module(network.encoder)) is not None:
            module.eval()
        for group in self.optimiser.param_groups:
            warmup = max(1, round(config.warmup * self.steps))
            group["lr"] = group["peak"] * rate_factor(self.progress.step, self.steps, warmup)
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]  # (R, T)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            features = self.frozen.features(network.encoder, batch.maps)
            features = network.without_image(features, torch.rand(batch.pictures) < config.no_image)
            logits, _, _ = network.decode(inputs, network.start(features, batch.image_of), only=batch.real)
        loss = caption_loss(logits, targets[batch.real], config.smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        self.optimiser.step()
        self.average.update(network, self.progress.step)
        return loss.item()

    def validate(self) -> None:
        """Caption the validation pictures with the averaged weights; keep the best by the first source's CIDEr."""
        for place, (name, entries, cache) in enumerate(self.validation):
            captions = greedy_captions(self.average.network, self.tokenizer, entries, cache, self.frozen, self.dtype)
            references = {entry.image_id: list(entry.captions) for entry in entries}
            scores = score_captions(captions, references, language=self.config.language, resamples=0)
            print(_told(name, self.progress.step, scores, captions))
            if place == 0 and scores.cider > self.progress.best:
                self.progress.best = scores.cider
                self.save_checkpoint("best")
        if not self.validation:
            self.save_checkpoint("best")

    def plan(self, epoch: int) -> list[tuple[int, list[int]]]:
        """Return (source, pictures) of every batch of an epoch, sources mixed."""
        config = self.config
        plan = [
            (number, indices)
            for number, source in enumerate(self.train_sources)
            for indices in source.plan(epoch, config.seed, config.batch)
        ]
        random.Random(f"epoch {config.seed} {epoch}").shuffle(plan)
        return plan

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        batches = sum(-(-len(source) // self.config.batch) for source in self.train_sources)
        return min(self.config.steps or sys.maxsize, self.config.epochs * batches)

    def save_checkpoint(self, name: str) -> None:
        card = card_text(self.config, self.progress.step, self.network.config.licence)
        save_checkpoint(
            self.run / name, self.network.config, self.average.network.state_dict(), self.tokenizer, card,
            dtype=torch.float16, shard_bytes=SHARD_BYTES,
        )  # fmt: skip

    def save_state(self) -> None:
        parts = {
            "tokenizer": self.tokenizer.to_json(),
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        settings = dataclasses.asdict(self.config) | {
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": self.threads,
        }
        save_state(self.run, self.progress, parts, settings)

    def restore(self) -> None:
        self.progress, parts, _ = load_state(self.run)
        self.network.load_state_dict(parts["network"])
        self.average.network.load_state_dict(parts["average"])
        self.optimiser.load_state_dict(parts["optimiser"])

    def _cache(self, source: Source, entries: list[Captioned], views: int) -> FeatureCache | None:
        if self.frozen.kind == "none":
            return None
        folder = Path(self.config.cache) if self.config.cache else self.run / "features"
        name = "".join(letter if letter.isalnum() else "-" for letter in Path(source.name).name)
        return cached_features(folder, self.network, self.frozen, entries, views, self.dtype, name)


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; returns the exit status."""
    config = parse_arguments(arguments)
    tokenizer: CaptionTokenizer | None = None
    try:
        if config.resume:
            progress, parts, settings = load_state(Path(config.run))
            if progress.finished:
                print(f"{config.run} is finished after {progress.step} steps; nothing to do")
                return 0
            tokenizer = CaptionTokenizer.from_json(parts["tokenizer"])
            config = restored_config(settings | {"run": config.run, "resume": True, "dry_run": config.dry_run})
        elif (Path(config.run) / "state.pt").exists():
            print(f"{config.run} holds a run already; go on with --resume, or name another folder", file=sys.stderr)
            return 2
        elif foreign := foreign_file(Path(config.run)):
            print(f"{config.run} holds {foreign!r}, which is no run's; name a new folder with --run", file=sys.stderr)
            return 2
        if config.check and not config.resume and not _is_sound(config):
            print("train.py: mend the data, or train on it as it is with --no-check", file=sys.stderr)
            return 1
        if not config.resume:
            config = dataclasses.replace(config, init=pinned(config.init))  # a hub may move on before --resume
        Path(config.run).mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, tokenizer)
        if config.resume:
            trainer.restore()
        trainer.prepare(config.batch if config.dry_run else None)
        size = sum(value.numel() for value in trainer.network.parameters() if value.requires_grad)
        print(f"{trainer.pictures} pictures an epoch, {size / 1e6:.1f} million trained parameters")
        if config.dry_run:
            _tell_cost(trainer)
            return 0
        trainer.train()
    except (CaptionerError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


def _is_sound(config: TrainConfig) -> bool:
    """Tell what is found in the data, and return whether none of it is an error."""
    reports = check_sources(config)
    for report in reports:
        print(report.in_words())
    return not any(report.errors for report in reports)


def _tell_cost(trainer: Trainer) -> None:
    """Time a few steps on a few pictures; the frozen part is passed once for every view of every picture."""
    config = trainer.config
    source = trainer.train_sources[0]
    batch = source.batch(list(range(min(config.batch, len(source)))), random.Random(0))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        trainer.step(batch)
        seconds.append(time.perf_counter() - started)
    steps = min(config.steps or sys.maxsize, config.epochs * -(-trainer.pictures // config.batch))
    hours = min(seconds) * steps / 3600
    print(f"a step takes {min(seconds):.2f} s here: {steps} steps, about {hours:.1f} hours")
    print("the features of what is frozen, once, and the validations come on top")


def _told(name: str, step: int, scores: CaptionScores, captions: dict[str, str]) -> str:
    """Return a validation in words: the scores, three captions to read, and a warning where nearly all are the same."""
    lines = [
        f"step {step}  {name}: CIDEr {100 * scores.cider:.1f}  BLEU-4 {100 * scores.bleu[3]:.1f}  "
        f"distinct {100 * scores.distinct:.0f} %  words {scores.words:.1f}",
        *(f"    {text}" for text in list(captions.values())[:3]),
    ]
    if scores.distinct < FEW_DISTINCT:
        lines.append("  WARNING: nearly one caption for every picture; lower --rate, and check that pictures and captions match")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
