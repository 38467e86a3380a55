"""The network that a run starts from: a checkpoint's, or a new one with a pretrained stem."""

from __future__ import annotations

import dataclasses
import time

from corpus import Source
from model import (
    CaptionNetwork,
    CaptionTokenizer,
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    MapConfig,
    ModelConfig,
    checkpoint_folder,
    load_checkpoint,
    timm_configs,
)
from training.config import TrainConfig
from training.features import FrozenPart
from training.stem import load_packaged_stem

IMAGE_SIZE = 224  # pixels a side, of an encoder that has none of its own
POSITIONS = 192  # room for an explained caption of 60 words


def build_network(
    config: TrainConfig, sources: list[Source], tokenizer: CaptionTokenizer | None = None
) -> tuple[CaptionNetwork, CaptionTokenizer]:
    """Return the network and tokenizer that training starts from; without a tokenizer one is learnt from the captions."""
    if config.init:
        start = load_checkpoint(checkpoint_folder(config.init))
        old = start.config
        spoken = old.languages if config.language in old.languages else (config.language, *old.languages)
        fresh = dataclasses.replace(
            old,
            # What was measured or chosen on the old weights does not hold for the new ones; a source's own defaults stay.
            maps=MapConfig(),
            generation=old.generation if old.no_image == "neutral" else GenerationOptions(),
            languages=spoken,
            licence=config.licence or old.licence,
            created=int(time.time()),
        )
        network = CaptionNetwork(fresh, dropout=config.dropout, drop_path=config.drop_path)
        network.load_state_dict(start.network.state_dict())
        return network, start.tokenizer
    if tokenizer is None:
        captions = (text for source in sources for entry in source.split("train") for text in entry.captions)
        tokenizer = CaptionTokenizer.train(captions, config.vocabulary)
    network = CaptionNetwork(
        _model_config(config, tokenizer.size),
        dropout=config.dropout,
        drop_path=config.drop_path,
        pretrained=config.pretrained if config.encoder else bool(config.stem) and config.stem_weights == "timm",
    )
    if not config.encoder and config.stem and config.stem_weights == "packaged":
        load_packaged_stem(network)
    return network, tokenizer


def frozen_part(network: CaptionNetwork, config: TrainConfig) -> FrozenPart:
    """Return what stays as it is: no gradient, and batch norms that keep their statistics.

    Left to choose, that is a stem, or the whole of an encoder that brings weights. Raises ConfigError where the network has
    no stem to freeze.
    """
    kind = config.freeze
    if kind == "auto":
        kind = "stem" if network.config.encoder.stem else "encoder" if config.init or config.pretrained else "none"
    part = FrozenPart(kind)
    part.module(network.encoder)
    return part


def _encoder_configs(config: TrainConfig) -> tuple[EncoderConfig, ImageConfig]:
    if config.encoder:
        return timm_configs(config.encoder, config.image_size)
    encoder = EncoderConfig(
        width=config.width,
        depth=config.encoder_depth,
        heads=config.heads,
        patch_size=config.patch_size,
        stem=config.stem,
        stem_strides=config.stem_strides,
        class_token=config.class_token,
        registers=config.registers,
    )
    size = config.image_size or IMAGE_SIZE
    return encoder, ImageConfig(height=size, width=size)


def _model_config(config: TrainConfig, vocabulary: int) -> ModelConfig:
    encoder, image = _encoder_configs(config)
    return ModelConfig(
        image=image,
        encoder=encoder,
        decoder=DecoderConfig(
            vocabulary=vocabulary,
            width=config.width,
            depth=config.decoder_depth,
            heads=config.heads,
            mlp_width=4 * config.width,
            positions=POSITIONS,
            image_width=encoder.width,
            null_key=config.null_key,
        ),
        languages=(config.language,),
        licence=config.licence,
        created=int(time.time()),
    )
