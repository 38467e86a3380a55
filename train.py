"""Train a captioner: teacher forcing on captioned images, validated by the captions that it generates.

    python train.py --data FOLDER --data scenes:12000 --run runs/first
    python train.py --run runs/first --resume

The output of the encoder's frozen part is computed once and cached; a step is then: cached features -> the rest of the encoder ->
decoder -> cross-entropy of the targets. RUN/best and RUN/last are checkpoint folders of the averaged weights.

Shapes: B images, R captions (rows), T tokens, V vocabulary, N targets.
"""

from __future__ import annotations

import model  # isort: skip  # noqa: F401  before torch is imported

import dataclasses
import random
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from corpus import CaptionDataset, CaptionedImage
from evaluation import score_captions
from model import (
    SHARD_BYTES,
    CaptionerError,
    CaptionTokenizer,
    autocast,
    choose_policy,
    save_checkpoint,
)
from training import (
    Batch,
    FeatureCache,
    Progress,
    RegionFinder,
    RunLog,
    RunStart,
    RunState,
    StateWeights,
    TextData,
    TrainingData,
    as_state,
    average_of,
    build_network,
    build_optimizer,
    cached_features,
    caption_loss,
    card_text,
    choose_frozen_part,
    closing_text,
    cost_text,
    count_steps,
    greedy_captions,
    images_per_epoch,
    inherited_text,
    judge,
    lr_factor,
    new_run,
    parse_arguments,
    predict,
    read_all_detections,
    read_texts,
    resumed_run,
    save_state,
    self_critical_of,
    update_average,
    used_flags,
    validation_report,
    write_validation_captions,
    write_validation_ids,
)

TEXT = -1  # the number of --text in a plan, where those of sources are 0, 1, …


class Trainer:
    """One run: its data, its network, and its progress."""

    def __init__(self, start: RunStart) -> None:
        """Build the network; a resumed run continues with the weights, the tokenizer and the progress of its state."""
        self.config = config = start.config
        self.sources, self.files = start.sources, start.files
        self.run, self.policy = Path(config.run), choose_policy(config.device, config.dtype, config.threads)
        self.policy.apply()
        print(f"device {self.policy.device}, {self.policy.num_threads} threads, {self.policy.reason}")
        torch.manual_seed(config.seed)
        tokenizer = CaptionTokenizer.from_json(start.state.parts["tokenizer"]) if start.state else None
        self.network, self.tokenizer = build_network(config, [source.dataset for source in self.sources], tokenizer)
        self.inherited = inherited_text(config, self.network)
        if config.init:
            print(f"from {config.init}: {self.inherited}")
        self.network.to(self.policy.device)
        self.frozen = choose_frozen_part(self.network, config)
        if (module := self.frozen.module(self.network.encoder)) is not None:
            module.requires_grad_(False)
        self.average = average_of(self.network, self.frozen)  # validated, saved and served
        self.optimizer = build_optimizer(self.network, config)
        self.scaler = torch.amp.GradScaler(self.policy.device.type, enabled=self.policy.dtype == torch.float16)
        self.num_steps = count_steps(config, self.sources)
        self.images_per_epoch = sum(images_per_epoch(config, source) for source in self.sources)
        self.state_weights = StateWeights(config, self.network, self.frozen)
        self.progress = Progress()
        if start.state:
            self.restore(start.state)

    def prepare(self, max_images: int | None = None) -> None:
        """Cache the frozen features and tokenize the captions, of at most `max_images` per source."""
        config = self.config
        self.train_data: list[TrainingData] = []
        self.text: TextData | None = None
        self.train_caches: list[FeatureCache | None] = []
        self.validation: list[tuple[str, list[CaptionedImage], FeatureCache | None]] = []
        detections = read_all_detections(config.detections)
        finder = RegionFinder(self.network.grid, self.tokenizer, detections) if config.region_weight else None
        self.self_critical = self_critical_of(config, self.sources, detections, self.tokenizer)
        for source in self.sources:
            entries = source.train[:max_images]
            num_views = config.num_views if entries[0].can_mirror else 1
            self.train_caches.append(self._cache(source.dataset, entries, num_views))
            data = TrainingData(
                entries,
                self.tokenizer,
                self.network.config,
                self.train_caches[-1],
                num_views=num_views,
                captions_per_image=config.captions_per_image,
                max_caption_tokens=config.max_caption_tokens,
                language=config.language,
                max_images_per_epoch=config.max_images_per_epoch,
                shuffle_images=config.shuffle_images,
                finder=finder,
            )
            self.train_data.append(data)
            entries = source.validation[: config.eval_images]
            if entries and max_images is None:
                self.validation.append((source.name, entries, self._cache(source.dataset, entries, 1)))
        if config.text:
            texts = read_texts(Path(config.text))
            self.text = TextData(texts, self.tokenizer, self.network.config, config.max_caption_tokens, config.language)

    def train(self) -> None:
        """Run the epochs that are left."""
        write_validation_ids(self.run, self.sources)
        with RunLog(self.run, self.progress.step) as self.log:
            if not self.progress.step and self.config.init:
                self.validate()
            while not self.progress.is_finished:
                self.train_epoch()

    def train_epoch(self) -> None:
        """Run the steps that are left of an epoch, and log each; validate and save if it is time."""
        config, progress = self.config, self.progress
        plan = self.plan(progress.epoch)
        with tqdm(plan[progress.batch :], desc=f"epoch {progress.epoch + 1}", unit="step", mininterval=5) as bar:
            mean = None
            for source, indices in bar:
                started = time.perf_counter()
                rng = random.Random(f"batch {config.seed} {progress.step}")
                data = self.text if source == TEXT and self.text else self.train_data[source]
                loss = self.step(data.batch(indices, rng))
                mean = loss if mean is None else 0.98 * mean + 0.02 * loss
                bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                progress.count_step(time.perf_counter() - started)
                lr, reward = self.optimizer.param_groups[0]["lr"], self.self_critical.mean_reward if self.self_critical else None
                self.log.write_step(progress, loss=loss, lr=lr, num_images=len(indices), reward=reward)
                if progress.step >= self.num_steps:
                    break
                if progress.step % config.save_steps == 0:
                    self.save_state()
        if progress.batch >= len(plan):
            progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.is_finished = progress.step >= self.num_steps
        if progress.is_finished or progress.epoch % config.eval_epochs == 0:
            self.validate()
            self.save_checkpoint("last")
            self.save_state()

    def step(self, batch: Batch) -> float:
        """One optimizer step; returns the loss in nats per token."""
        config, network = self.config, self.network
        network.train()
        if (module := self.frozen.module(network.encoder)) is not None:
            module.eval()
        factor = lr_factor(self.progress.step, self.num_steps, round(config.warmup_ratio * self.num_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor

        batch = batch.to(self.policy.device)
        with autocast(self.policy.device, self.policy.dtype):
            features = self.frozen.features(network.encoder, batch.inputs) if batch.num_images else network.unconditional()
            logits, targets, attention_loss = predict(network, features, batch, config.unconditional_ratio)
            loss = caption_loss(logits, targets, config.label_smoothing)
            loss = self.self_critical.mix(loss, network, features, batch) if self.self_critical else loss
        loss = loss + config.region_weight * attention_loss

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        update_average(self.average, network, config.ema_decay, self.progress.step)
        return loss.item()

    def validate(self) -> None:
        """Caption the validation images with the averaged weights; keep the best by the first source's CIDEr."""
        config, progress = self.config, self.progress
        for number, (name, entries, cache) in enumerate(self.validation):
            captions = self.captions(entries, cache)
            references = {entry.image_id: list(entry.captions) for entry in entries}
            scores = score_captions(captions, references, language=config.language, resamples=0)
            print(validation_report(name, progress.step, scores, captions))
            self.log.write_validation(progress, name, scores.as_json())
            if number == 0 and not progress.step:
                progress.before = scores.cider
            if number == 0 and scores.cider > progress.best:
                progress.best, progress.best_step = scores.cider, progress.step
                write_validation_captions(self.run, captions)
                self.save_checkpoint("best")
        if not self.validation:
            self.save_checkpoint("best")

    def captions(self, entries: list[CaptionedImage], cache: FeatureCache | None) -> dict[str, str]:
        """Return the captions that the averaged weights write, by image id."""
        parts = (self.frozen, self.policy.dtype, self.config.language)
        return greedy_captions(self.average, self.tokenizer, entries, cache, *parts)

    def closing(self) -> str:
        """Return the last lines of a run, after judging its captions; without validation images, those of training images."""
        entries, cache = self.validation[0][1:] if self.validation else (self.sources[0].train[:16], self.train_caches[0])
        captions = None if self.validation else self.captions(entries, cache)
        judgement = judge(self.config, self.progress, self.sources[0], entries, captions)
        return closing_text(self.config, self.progress, self.sources[0], judgement)

    def plan(self, epoch: int) -> list[tuple[int, list[int]]]:
        """Return (source, images) of every batch of an epoch, sources mixed."""
        config = self.config
        plan = [
            (number, indices)
            for number, data in enumerate(self.train_data)
            for indices in data.plan(epoch, config.seed, config.batch_size)
        ]
        if self.text:
            plan += [(TEXT, rows) for rows in self.text.plan(epoch, config.seed, config.batch_size * config.captions_per_image)]
        random.Random(f"epoch {config.seed} {epoch}").shuffle(plan)
        return plan

    def save_checkpoint(self, name: str) -> None:
        card = card_text(self.config, self.progress.step, self.network.config.license, self.inherited)
        save_checkpoint(
            self.run / name, self.network.config, self.average.state_dict(), self.tokenizer, card,
            dtype=torch.float16, shard_bytes=SHARD_BYTES,
        )  # fmt: skip

    def save_state(self) -> None:
        parts = {
            "tokenizer": self.tokenizer.to_json(),
            "network": self.state_weights.select(self.network),
            "average": self.state_weights.select(self.average),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        settings = dataclasses.asdict(self.config) | {
            "files": self.files,
            "device": str(self.policy.device),
            "dtype": str(self.policy.dtype).removeprefix("torch."),
            "threads": self.policy.num_threads,
        }
        state = RunState(self.progress, parts, settings, as_state(self.sources), self.state_weights.digest)
        save_state(self.run, state, self.policy.device)

    def restore(self, state: RunState) -> None:
        self.progress = state.progress
        self.state_weights.check(state.frozen)
        self.state_weights.load(self.network, state.parts["network"])
        self.state_weights.load(self.average, state.parts["average"])
        self.optimizer.load_state_dict(state.parts["optimizer"])
        self.scaler.load_state_dict(state.parts["scaler"])
        state.restore_random_states()

    def _cache(self, source: CaptionDataset, entries: list[CaptionedImage], num_views: int) -> FeatureCache | None:
        if self.frozen.kind == "none":
            return None
        folder = Path(self.config.feature_cache) if self.config.feature_cache else self.run / "features"
        name = "".join(letter if letter.isalnum() else "-" for letter in Path(source.name).name)
        return cached_features(folder, self.network, self.frozen, entries, num_views, self.policy.dtype, name)


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; returns the exit status: 0 all done, 1 bad data or files, 2 wrong use."""
    config, flags = parse_arguments(arguments), used_flags(arguments)
    try:
        start = resumed_run(flags) if config.resume else new_run(config, flags)
        if isinstance(start, int):
            return start
        Path(config.run).mkdir(parents=True, exist_ok=True)
        trainer = Trainer(start)
        trainer.prepare(config.batch_size if config.dry_run else None)
        trained = sum(value.numel() for value in trainer.network.parameters() if value.requires_grad)
        print(f"{trainer.images_per_epoch} images per epoch, {trained / 1e6:.1f} million trained parameters")
        if config.dry_run:
            data = trainer.train_data[0]
            batch = data.batch(list(range(min(start.config.batch_size, len(data)))), random.Random(0))
            print(cost_text(lambda: trainer.step(batch), trainer.num_steps))
            return 0
        trainer.train()
        print(trainer.closing())
    except (CaptionerError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
