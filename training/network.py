"""The network that a run starts from: a checkpoint's, or a new one with a pretrained stem."""

from __future__ import annotations

import dataclasses
import time

from torch import nn

from corpus import Source
from model import (
    CaptionNetwork,
    CaptionTokenizer,
    ConfigError,
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    MapConfig,
    ModelConfig,
    checkpoint_folder,
    load_checkpoint,
)
from training.config import TrainConfig
from training.stem import load_packaged_stem

POSITIONS = 192  # room for an explained caption of 60 words


def build_network(
    config: TrainConfig, sources: list[Source], tokenizer: CaptionTokenizer | None = None
) -> tuple[CaptionNetwork, CaptionTokenizer]:
    """Return the network and tokenizer that training starts from; without a tokenizer one is learnt from the captions."""
    if config.init:
        start = load_checkpoint(checkpoint_folder(config.init))
        # What was measured or chosen on the old weights does not hold for the new ones.
        fresh = dataclasses.replace(start.config, maps=MapConfig(), generation=GenerationOptions(), created=int(time.time()))
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
        pretrained_stem=bool(config.stem) and config.stem_weights == "timm",
    )
    if config.stem and config.stem_weights == "packaged":
        load_packaged_stem(network)
    return network, tokenizer


def frozen_parts(network: CaptionNetwork, freeze: str) -> list[nn.Module]:
    """Return the modules that stay as they are: no gradient, and batch norms that keep their statistics.

    Raises ConfigError where the network has no stem to freeze.
    """
    if freeze == "none":
        return []
    if freeze == "encoder":
        return [network.encoder]
    if not network.config.encoder.stem:
        raise ConfigError("this network has no stem to freeze; use --freeze none, or --freeze encoder")
    return [network.encoder.vit.patch_embed.backbone]


def _model_config(config: TrainConfig, vocabulary: int) -> ModelConfig:
    return ModelConfig(
        image=ImageConfig(height=config.image_size, width=config.image_size),
        encoder=EncoderConfig(
            width=config.width,
            depth=config.encoder_depth,
            heads=config.heads,
            patch_size=config.patch_size,
            stem=config.stem,
            stem_strides=config.stem_strides,
            class_token=config.class_token,
            registers=config.registers,
        ),
        decoder=DecoderConfig(
            vocabulary=vocabulary,
            width=config.width,
            depth=config.decoder_depth,
            heads=config.heads,
            mlp_width=4 * config.width,
            positions=POSITIONS,
            image_width=config.width,
            null_key=config.null_key,
        ),
        languages=(config.language,),
        created=int(time.time()),
    )
