"""The data of a stage of a run: batches of every source, cached features, validation images, and the plan of an epoch."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from corpus import Augmentation, CaptionDataset, CaptionedImage
from model import CaptionNetwork
from training.config import TrainConfig
from training.data import TextData, TrainingData
from training.features import FeatureCache, FrozenPart, cached_features
from training.loading import TEXT, PlannedStep, StepLoader
from training.ranks import Ranks
from training.regions import RegionFinder, read_all_detections
from training.schedule import texts_of
from training.self_critical import self_critical_of
from training.sources import Source
from training.teacher import PART, Teacher, load_teacher
from training.trained_network import TrainedNetwork


class RunData:
    """What is trained on and validated on while `part` of the encoder is frozen."""

    def __init__(
        self,
        config: TrainConfig,
        sources: list[Source],
        trained: TrainedNetwork,
        part: FrozenPart,
        dtype: torch.dtype,
        ranks: Ranks,
        max_images: int | None = None,
    ) -> None:
        """Cache the features of the frozen part and tokenize the captions, of at most `max_images` per source."""
        self._config, self._sources, self._part, self._dtype, self._ranks = config, sources, part, dtype, ranks
        network, tokenizer, device = trained.whole(), trained.tokenizer, trained.network.device
        self.train: dict[int, TrainingData | TextData] = {}
        self.validation: list[tuple[str, list[CaptionedImage], FeatureCache | None]] = []
        detections = read_all_detections(config.detections)
        finder = RegionFinder(network.grid, tokenizer, detections) if config.region_weight else None
        trained.objective.self_critical = self_critical_of(config, sources, detections, tokenizer)
        teacher = load_teacher(config.teacher, network, tokenizer, device) if config.teacher else None
        trained.objective.teacher = teacher
        for number, source in enumerate(sources):
            entries = source.train[:max_images]
            num_views = config.num_views if entries[0].can_mirror else 1
            self.train[number] = TrainingData(
                entries,
                tokenizer,
                network.config,
                self._cached(network, source.dataset, entries, num_views),
                num_views=num_views,
                captions_per_image=config.captions_per_image,
                max_caption_tokens=config.max_caption_tokens,
                language=config.language,
                max_images_per_epoch=config.max_images_per_epoch,
                shuffle_images=config.shuffle_images,
                unconditional_ratio=config.unconditional_ratio,
                augmentation=Augmentation(config.min_crop_area, config.rand_augment, config.rand_augment_magnitude),
                finder=finder,
                teacher_cache=self._teacher_cache(teacher, source.dataset, entries, num_views) if teacher else None,
            )
            entries = source.validation[: config.eval_images]
            if entries and max_images is None:
                self.validation.append((source.name, entries, self._cached(network, source.dataset, entries, 1)))
        if config.text or config.text_epochs:
            texts = texts_of(config, sources)
            self.train[TEXT] = TextData(texts, tokenizer, network.config, config.max_caption_tokens, config.language)
        self.loader = StepLoader(self.train, config, ranks)

    def plan(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return (source, images) of every step of an epoch, sources mixed."""
        config = self._config
        is_text_epoch = epoch < config.text_epochs
        plan = []
        for number, data in self.train.items():
            is_text = number == TEXT
            if is_text_epoch == is_text or (is_text and not config.text_epochs):
                batch_size = config.batch_size * (config.captions_per_image if is_text else 1)
                plan += [(number, tuple(indices)) for indices in data.plan(epoch, config.seed, batch_size)]
        random.Random(f"epoch {config.seed} {epoch}").shuffle(plan)
        return plan

    def first_step(self) -> PlannedStep:
        """Return a step of captioned images, to find out what a step costs."""
        return PlannedStep(0, 0, tuple(self.train[0].plan(0, self._config.seed, self._config.batch_size)[0]))

    def training_images(self, network: CaptionNetwork, count: int) -> tuple[list[CaptionedImage], FeatureCache | None]:
        """Return some images of the first source, for runs that have no validation images."""
        entries = self._sources[0].train[:count]
        return entries, self._cached(network, self._sources[0].dataset, entries, 1)

    def _cached(
        self, network: CaptionNetwork, source: CaptionDataset, entries: list[CaptionedImage], num_views: int
    ) -> FeatureCache | None:
        if self._part.kind == "none":
            return None
        return self._features(network, self._part, source, entries, num_views)

    def _teacher_cache(
        self, teacher: Teacher, source: CaptionDataset, entries: list[CaptionedImage], num_views: int
    ) -> FeatureCache:
        return self._features(teacher.network, PART, source, entries, num_views)

    def _features(
        self, network: CaptionNetwork, part: FrozenPart, source: CaptionDataset, entries: list[CaptionedImage], num_views: int
    ) -> FeatureCache:
        config = self._config
        folder = Path(config.feature_cache) if config.feature_cache else Path(config.run) / "features"
        name = "".join(letter if letter.isalnum() else "-" for letter in Path(source.name).name)
        return cached_features(folder, network, part, entries, num_views, self._dtype, name, self._ranks)
