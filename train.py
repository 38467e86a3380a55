"""Train a captioner: teacher forcing on captioned images, validated by the captions that it generates.

    python train.py --data FOLDER --data scenes:12000 --run runs/first
    python train.py --run runs/first --resume

The output of the encoder's frozen part is computed once and cached; a step is then: cached features -> the rest of the encoder ->
decoder -> cross-entropy of the targets. RUN/best and RUN/last are checkpoint folders of the averaged weights.

Shapes: B images, R captions (rows), T tokens, V vocabulary, N targets.
"""

from __future__ import annotations

import model  # isort: skip  # noqa: F401  before torch is imported

import copy
import dataclasses
import math
import random
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from corpus import CaptionDataset, CaptionedImage, open_dataset
from evaluation import score_captions
from model import (
    SHARD_BYTES,
    CaptionerError,
    CaptionNetwork,
    CaptionTokenizer,
    ImageFeatures,
    autocast,
    choose_policy,
    pin_revision,
    save_checkpoint,
)
from training import (
    Batch,
    FeatureCache,
    Progress,
    TrainConfig,
    TrainingData,
    build_network,
    build_optimizer,
    cached_features,
    card_text,
    check_sources,
    choose_frozen_part,
    greedy_captions,
    load_state,
    parse_arguments,
    restored_config,
    save_state,
    unusable_folder,
    update_average,
    validation_report,
)

MIN_LR = 0.02  # share of the peak learning rate that the cosine ends at


class Trainer:
    """One run: its data, its network, and its progress."""

    def __init__(self, config: TrainConfig, tokenizer: CaptionTokenizer | None = None) -> None:
        """Open the data and build the network; a resumed run passes its own tokenizer."""
        self.config = config
        self.run = Path(config.run)
        self.policy = choose_policy(config.device, config.dtype, config.threads)
        self.policy.apply()
        print(f"device {self.policy.device}, {self.policy.num_threads} threads, {self.policy.reason}")
        torch.manual_seed(config.seed)
        self.sources = [open_dataset(data, language=config.language, seed=config.seed) for data in config.data]
        self.network, self.tokenizer = build_network(config, self.sources, tokenizer)
        self.network.to(self.policy.device)
        self.frozen = choose_frozen_part(self.network, config)
        if (module := self.frozen.module(self.network.encoder)) is not None:
            module.requires_grad_(False)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)  # validated, saved and served
        self.optimizer = build_optimizer(self.network, config)
        self.scaler = torch.amp.GradScaler(self.policy.device.type, enabled=self.policy.dtype == torch.float16)
        self.progress = Progress()
        self.images_per_epoch = 0  # over all sources

    def prepare(self, max_images: int | None = None) -> None:
        """Cache the frozen features and tokenize the captions, of at most `max_images` per source."""
        config = self.config
        self.train_data: list[TrainingData] = []
        self.validation: list[tuple[str, list[CaptionedImage], FeatureCache | None]] = []
        for source in self.sources:
            entries = source.split("train")
            self.images_per_epoch += min(len(entries), config.max_images_per_epoch or len(entries))
            entries = entries[:max_images]
            num_views = config.num_views if entries[0].can_mirror else 1
            data = TrainingData(
                entries,
                self.tokenizer,
                self.network.config,
                self._cache(source, entries, num_views),
                num_views=num_views,
                captions_per_image=config.captions_per_image,
                max_caption_tokens=config.max_caption_tokens,
                language=config.language,
                max_images_per_epoch=config.max_images_per_epoch,
                shuffle_images=config.shuffle_images,
            )
            self.train_data.append(data)
            held_out = source.split("val")[: config.eval_images]
            if held_out and max_images is None:
                self.validation.append((source.name, held_out, self._cache(source, held_out, 1)))

    def train(self) -> None:
        """Run the epochs that are left."""
        config, progress = self.config, self.progress
        while not progress.is_finished:
            plan = self.plan(progress.epoch)
            with tqdm(plan[progress.batch :], desc=f"epoch {progress.epoch + 1}", unit="step", mininterval=5) as bar:
                mean = None
                for source, indices in bar:
                    rng = random.Random(f"batch {config.seed} {progress.step}")
                    loss = self.step(self.train_data[source].batch(indices, rng))
                    mean = loss if mean is None else 0.98 * mean + 0.02 * loss
                    bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                    progress.batch += 1
                    progress.step += 1
                    if progress.step >= self.num_steps:
                        break
                    if progress.step % config.save_steps == 0:
                        self.save_state()
            if progress.step >= self.num_steps or progress.batch >= len(plan):
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
            features = self.frozen.features(network.encoder, batch.inputs)
            logits, targets = predict(network, features, batch, config.unconditional_ratio)
        loss = caption_loss(logits, targets, config.label_smoothing)

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
        config = self.config
        for number, (name, entries, cache) in enumerate(self.validation):
            captions = greedy_captions(
                self.average, self.tokenizer, entries, cache, self.frozen, self.policy.dtype, config.language
            )
            references = {entry.image_id: list(entry.captions) for entry in entries}
            scores = score_captions(captions, references, language=config.language, resamples=0)
            print(validation_report(name, self.progress.step, scores, captions))
            if number == 0 and scores.cider > self.progress.best:
                self.progress.best = scores.cider
                self.save_checkpoint("best")
        if not self.validation:
            self.save_checkpoint("best")

    def plan(self, epoch: int) -> list[tuple[int, list[int]]]:
        """Return (source, images) of every batch of an epoch, sources mixed."""
        config = self.config
        plan = [
            (number, indices)
            for number, data in enumerate(self.train_data)
            for indices in data.plan(epoch, config.seed, config.batch_size)
        ]
        random.Random(f"epoch {config.seed} {epoch}").shuffle(plan)
        return plan

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        batches = sum(-(-len(data) // self.config.batch_size) for data in self.train_data)
        return min(self.config.max_steps or sys.maxsize, self.config.epochs * batches)

    def save_checkpoint(self, name: str) -> None:
        card = card_text(self.config, self.progress.step, self.network.config.license)
        save_checkpoint(
            self.run / name, self.network.config, self.average.state_dict(), self.tokenizer, card,
            dtype=torch.float16, shard_bytes=SHARD_BYTES,
        )  # fmt: skip

    def save_state(self) -> None:
        parts = {
            "tokenizer": self.tokenizer.to_json(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        settings = dataclasses.asdict(self.config) | {
            "device": str(self.policy.device),
            "dtype": str(self.policy.dtype).removeprefix("torch."),
            "threads": self.policy.num_threads,
        }
        save_state(self.run, self.progress, parts, settings, self.policy.device)

    def restore(self) -> None:
        self.progress, parts, _ = load_state(self.run)
        self.network.load_state_dict(parts["network"])
        self.average.load_state_dict(parts["average"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.scaler.load_state_dict(parts["scaler"])

    def _cache(self, source: CaptionDataset, entries: list[CaptionedImage], num_views: int) -> FeatureCache | None:
        if self.frozen.kind == "none":
            return None
        folder = Path(self.config.feature_cache) if self.config.feature_cache else self.run / "features"
        name = "".join(letter if letter.isalnum() else "-" for letter in Path(source.name).name)
        return cached_features(folder, self.network, self.frozen, entries, num_views, self.policy.dtype, name)


def predict(network: CaptionNetwork, features: ImageFeatures, batch: Batch, unconditional_ratio: float) -> tuple[Tensor, Tensor]:
    """Return logits (N, V) and targets (N,) of a batch; "no image" replaces a share of the images."""
    inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]  # (R, T)
    dropped = torch.rand(batch.num_images, device=inputs.device) < unconditional_ratio  # (B,)
    state = network.start(network.drop_images(features, dropped), batch.image_of)
    logits, _, _ = network.decode(inputs, state, logits_mask=batch.is_target)  # (N, V)
    return logits, targets[batch.is_target]


def caption_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy in nats: logits (N, V), targets (N,) without padding.

    Label smoothing: Szegedy et al. 2016, section 7.
    """
    return functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)


def lr_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate: linear warmup, then a cosine (Loshchilov and Hutter 2017, section 3)."""
    warmup_steps = max(1, warmup_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return MIN_LR + (1 - MIN_LR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def report_cost(trainer: Trainer) -> None:
    """Time a few steps on a few images; the frozen features, computed once for every view, come on top."""
    config = trainer.config
    data = trainer.train_data[0]
    batch = data.batch(list(range(min(config.batch_size, len(data)))), random.Random(0))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        trainer.step(batch)
        seconds.append(time.perf_counter() - started)
    steps = min(config.max_steps or sys.maxsize, config.epochs * -(-trainer.images_per_epoch // config.batch_size))
    hours = min(seconds) * steps / 3600
    print(f"a step takes {min(seconds):.2f} s here: {steps} steps, about {hours:.1f} hours")
    print("the frozen features, once, and the validations come on top")


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; returns the exit status."""
    config = parse_arguments(arguments)
    tokenizer: CaptionTokenizer | None = None
    try:
        if config.resume:
            progress, parts, settings = load_state(Path(config.run))
            if progress.is_finished:
                print(f"{config.run} is finished after {progress.step} steps; nothing to do")
                return 0
            tokenizer = CaptionTokenizer.from_json(parts["tokenizer"])
            device = settings["device"] if config.device == "auto" else config.device
            config = restored_config(settings | {"run": config.run, "resume": True, "dry_run": config.dry_run, "device": device})
        elif message := unusable_folder(Path(config.run)):
            print(f"train.py: {message}", file=sys.stderr)
            return 2
        if not config.resume:
            if config.check and not check_sources(config):
                print("train.py: fix the data, or train on it as it is with --no-check", file=sys.stderr)
                return 1
            config = dataclasses.replace(config, init=pin_revision(config.init))  # a hub may change before --resume
        Path(config.run).mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, tokenizer)
        if config.resume:
            trainer.restore()
        trainer.prepare(config.batch_size if config.dry_run else None)
        trained = sum(value.numel() for value in trainer.network.parameters() if value.requires_grad)
        print(f"{trainer.images_per_epoch} images per epoch, {trained / 1e6:.1f} million trained parameters")
        if config.dry_run:
            report_cost(trainer)
            return 0
        trainer.train()
    except (CaptionerError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
