"""Train a captioner: teacher forcing on captioned images, validated by the captions that it generates.

    python train.py --data FOLDER --data scenes:12000 --run runs/first
    python train.py --run runs/first --resume
    torchrun --nproc-per-node 8 train.py --data FOLDER --run runs/second --preset coco

The output of the encoder's frozen part is computed once and cached; a step is then: cached features -> the rest of the encoder ->
decoder -> cross-entropy of the targets. RUN/best and RUN/last are checkpoint folders of the averaged weights.

Shapes: B images, R captions (rows), T tokens, V vocabulary, N targets.
"""

from __future__ import annotations

import model  # isort: skip  # noqa: F401  before torch is imported

import dataclasses
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from corpus import CaptionedImage
from evaluation import score_captions
from model import CaptionerError, autocast, available_threads, choose_policy
from training import (
    COST_STEPS,
    FeatureCache,
    LoadedStep,
    PlannedStep,
    Progress,
    Ranks,
    RunData,
    RunLog,
    RunSaves,
    RunStart,
    StepGuard,
    StoppedError,
    StopSignals,
    Totals,
    TrainedNetwork,
    bar_text,
    check_parallel,
    clip_gradients,
    closing_text,
    collapse_alarm,
    cost_text,
    count_steps,
    encoder_factor,
    failure_message,
    first_encoder_step,
    gradients_summed,
    greedy_captions,
    images_per_epoch,
    judge,
    learning_rates,
    lr_factor,
    memory_used,
    merged_captions,
    parse_arguments,
    run_start,
    running_ranks,
    sample_sheets,
    seed_step,
    set_learning_rates,
    stage_part,
    used_flags,
    validation_report,
    write_run_description,
    write_validation_captions,
    write_validation_ids,
)


class Trainer:
    """One run: its data, its network, and its progress; one of its ranks if there are several."""

    def __init__(self, start: RunStart, ranks: Ranks | None = None) -> None:
        """Build the network; a resumed run continues with the weights, the tokenizer and the progress of its state."""
        self.ranks = ranks = ranks or Ranks()
        config = start.config
        check_parallel(config, ranks)
        threads = config.threads or max(1, available_threads() // ranks.local_count)
        self.policy = choose_policy(ranks.device(config.device), config.dtype, threads)
        self.policy.apply()
        self.config = config = dataclasses.replace(config, threads=threads)
        self.sources, self.run = start.sources, Path(config.run)
        several = f"{ranks.count} ranks, " if ranks.count > 1 else ""
        print(f"device {self.policy.device}, {several}{threads} threads, {self.policy.reason}")
        self.trained = TrainedNetwork(dataclasses.replace(start, config=config), self.policy, ranks)
        if config.init:
            print(f"from {config.init}: {self.trained.inherited}")
        self.progress = start.state.progress if start.state else Progress()
        self.num_steps = count_steps(config, self.sources)
        self.encoder_start = first_encoder_step(config, self.sources)
        self.images_per_epoch = sum(images_per_epoch(config, source) for source in self.sources)
        self.saves = RunSaves(start, config, self.trained, self.policy, ranks)
        self.is_updating = False
        self.guard, self.signals = StepGuard(config), StopSignals()
        self.log = RunLog(self.run, 0, is_active=False)

    def prepare(self, max_images: int | None = None) -> None:
        """Begin the stage of this epoch: freeze its part, cache its features, tokenize captions.

        With `max_images` it is the last stage, of at most so many images per source: that is what a run costs most for.
        """
        part = self.trained.frozen if max_images else stage_part(self.config, self.trained.frozen, self.progress.epoch)
        self.trained.start_stage(part)
        self.data = RunData(self.config, self.sources, self.trained, part, self.policy.dtype, self.ranks, max_images)

    def train(self) -> None:
        """Run the epochs that are left. Raises StoppedError after a signal; the state is saved then."""
        if self.ranks.is_first:
            write_validation_ids(self.run, self.sources)
            write_run_description(self.run, self.config, self.ranks)
        try:
            with RunLog(self.run, self.progress.step, is_active=self.ranks.is_first) as self.log, self.signals:
                if not self.progress.step and self.config.init:
                    self.validate()
                while not self.progress.is_finished:
                    self.train_epoch()
            self.saves.finish()
        except (RuntimeError, MemoryError) as error:  # no memory, or another rank has ended
            saved_step = self.saves.rescue(self.progress, is_whole=not self.is_updating)
            if message := failure_message(self.config, self.progress.step, saved_step, error):
                raise CaptionerError(message) from error
            raise

    def train_epoch(self) -> None:
        """Run the steps that are left of an epoch, and log each; validate and save if it is time."""
        config, progress = self.config, self.progress
        if stage_part(config, self.trained.frozen, progress.epoch) != self.trained.objective.frozen:
            self.prepare()
        plan = self.data.plan(progress.epoch)
        left = [PlannedStep(progress.step + number, *entry) for number, entry in enumerate(plan[progress.batch :])]
        left = left[: self.num_steps - progress.step]
        with tqdm(total=len(left), desc=f"epoch {progress.epoch + 1}", unit="step", mininterval=5,
                  disable=not self.ranks.is_first) as bar:  # fmt: skip
            started = time.perf_counter()
            for loaded in self.data.loader.load(left, pin_memory=self.policy.device.type == "cuda"):
                waited = time.perf_counter() - started
                values = self.step(loaded) | {"data_wait": round(waited, 4), "memory": memory_used(self.policy.device)}
                progress.count_step(time.perf_counter() - started, values["loss"])
                started = time.perf_counter()
                bar.set_postfix_str(bar_text(progress, values, loaded.num_images, self.num_steps), refresh=False)
                bar.update()
                self.log.write_step(progress, loaded.num_images, values)
                self.saves.finish_state(progress, waits=False)
                if any(self.ranks.sum(float(self.signals.number))):
                    self.stop()
                if progress.step % config.save_steps == 0 and progress.step < self.num_steps:
                    self.saves.state(progress)
        before = dataclasses.replace(progress)
        if progress.batch >= len(plan):
            progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.is_finished = progress.step >= self.num_steps
        if progress.is_finished or progress.epoch % config.eval_epochs == 0:
            try:
                self.validate()
            except BaseException:  # a state that is saved now has this validation before it
                self.progress = before
                raise
            self.saves.checkpoint("last", progress)
            self.saves.state(progress)

    def step(self, loaded: LoadedStep) -> dict[str, float]:
        """One optimizer step; returns the loss in nats per token, and other figures for the log."""
        config, progress, trained = self.config, self.progress, self.trained
        seed_step(config.seed, progress.step, self.ranks.rank)
        trained.objective.train()
        factor = lr_factor(progress.step, self.num_steps, round(config.warmup_ratio * self.num_steps))
        set_learning_rates(trained.optimizer, factor, encoder_factor(config, self.encoder_start, progress.step, self.num_steps))
        totals = Totals.of(loaded, self.ranks)
        is_late = bool(config.drop_worst_ratio) and progress.step >= config.drop_worst_after * self.num_steps

        trained.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.policy.device)
        for number, part in enumerate(loaded.parts, 1):
            with gradients_summed(trained.engine, is_last=number == len(loaded.parts)):
                with autocast(self.policy.device, self.policy.dtype):
                    share = trained.engine(part.to(self.policy.device), totals, drops_worst=is_late)
                trained.scaler.scale(share * self.ranks.count).backward()  # the engines divide by the number of ranks
            loss += share.detach()
        trained.scaler.unscale_(trained.optimizer)
        grad_norm = clip_gradients(trained.objective, config.max_grad_norm)
        (mean_loss,) = self.ranks.sum(loss.item())
        self.is_updating = True
        if self.guard.check(mean_loss, grad_norm, progress.step):
            trained.scaler.step(trained.optimizer)
            trained.average.update(trained.network, config.ema_decay, progress.step)
        trained.scaler.update()
        self.is_updating = False
        values = {"loss": mean_loss, "grad_norm": grad_norm, **learning_rates(trained.optimizer)}
        reward = trained.objective.self_critical.mean_reward if trained.objective.self_critical else None
        return values if reward is None else values | {"reward": reward}

    def validate(self) -> None:
        """Caption the validation images with the averaged weights; keep the best by the first source's CIDEr."""
        config, progress = self.config, self.progress
        for number, (name, entries, cache) in enumerate(self.data.validation):
            captions = self.captions(entries, cache)
            references = {entry.image_id: list(entry.captions) for entry in entries}
            scores = score_captions(captions, references, language=config.language, resamples=0)
            print(validation_report(name, progress.step, scores, captions))
            if alarm := collapse_alarm(config, captions, scores):
                print(alarm)
            self.log.write_validation(progress, name, scores.as_json())
            if number == 0:
                if not progress.step:
                    progress.before = scores.cider
                progress.stale += 1
                if scores.cider > progress.best:
                    progress.best, progress.best_step, progress.stale = scores.cider, progress.step, 0
                    if self.ranks.is_first:
                        write_validation_captions(self.run, captions)
                    self.saves.checkpoint("best", progress)
                self.show_samples(entries[: config.sample_images])
        if not self.data.validation:
            self.saves.checkpoint("best", progress)
        elif config.patience and progress.stale >= config.patience and not progress.is_finished:
            print(f"no better CIDEr in {progress.stale} validations: the run ends here (--patience {config.patience})")
            progress.is_finished = True

    def captions(self, entries: list[CaptionedImage], cache: FeatureCache | None) -> dict[str, str]:
        """Return the captions that the averaged weights write, by image id; each rank captions its share."""
        parts = (self.trained.objective.frozen, self.policy.dtype, self.config.language)
        own = self.ranks.part(list(enumerate(entries)))
        captions = greedy_captions(self.trained.average.network(), self.trained.tokenizer, own, cache, *parts)
        return merged_captions(entries, self.ranks.gather(captions))

    def show_samples(self, entries: list[CaptionedImage]) -> None:
        """Show images with captions and maps in TensorBoard."""
        network = self.trained.average.network()
        if self.ranks.is_first and self.log.has_curves:
            for name, sheet in sample_sheets(network, self.trained.tokenizer, entries, self.config.language):
                self.log.add_image(f"maps/{name}", sheet, self.progress.step)

    def closing(self) -> str:
        """Return the last lines of a run, after judging its captions; without validation images, those of training images."""
        if self.data.validation:
            entries, captions = self.data.validation[0][1], None
        else:
            entries, cache = self.data.training_images(self.trained.whole(), 16)
            captions = self.captions(entries, cache)
        if not self.ranks.is_first:
            return ""
        judgement = judge(self.config, self.progress, self.sources[0], entries, captions)
        return closing_text(self.config, self.progress, self.sources[0], judgement)

    def stop(self) -> None:
        """Save the state and end the run, after a signal to one of the ranks. Raises StoppedError."""
        self.saves.state(self.progress)
        self.saves.finish_state(self.progress)
        raise StoppedError(
            f"stopped by a signal after step {self.progress.step}; the state of step {self.saves.writer.written_step} is saved: "
            f"python train.py --run {self.config.run} --resume",
            self.signals.number or signal.SIGTERM,
        )


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; returns the exit status: 0 all done, 1 bad data or files, 2 wrong use, 128 + a signal."""
    config, flags = parse_arguments(arguments), used_flags(arguments)
    try:
        with running_ranks() as ranks:
            start = run_start(config, flags, ranks)
            if isinstance(start, int):
                return start
            Path(config.run).mkdir(parents=True, exist_ok=True)
            trainer = Trainer(start, ranks)
            trainer.prepare(config.batch_size if config.dry_run else None)
            print(
                f"{trainer.images_per_epoch} images per epoch, {trainer.trained.num_trained / 1e6:.1f} million trained parameters"
            )
            if config.dry_run:
                steps = trainer.data.loader.load([trainer.data.first_step()] * COST_STEPS, pin_memory=False)
                print(cost_text(lambda: trainer.step(next(steps)), trainer.num_steps))
                return 0
            trainer.train()
            print(trainer.closing())
    except StoppedError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_status
    except (CaptionerError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
