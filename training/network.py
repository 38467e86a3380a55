"""The network that a run starts from: a checkpoint's, or a new one with a pretrained stem."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from corpus import CaptionDataset
from model import (
    CaptionNetwork,
    CaptionTokenizer,
    Checkpoint,
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    ModelConfig,
    checkpoint_folder,
    fields_of,
    load_checkpoint,
    read_config,
    timm_configs,
)
from training.config import TrainConfig
from training.features import FrozenPart
from training.languages import load_with_languages, with_languages
from training.packaged_stem import load_packaged_stem

_IMAGE_SIZE = 224  # pixels per side, of an encoder that has no size of its own
_MAX_POSITIONS = 192  # room for an explained caption of 60 words


def build_network(
    config: TrainConfig, sources: Sequence[CaptionDataset], tokenizer: CaptionTokenizer | None = None
) -> tuple[CaptionNetwork, CaptionTokenizer]:
    """Return the network and tokenizer that training starts from.

    Without a tokenizer, which a resumed run has, it is that of --init, or one is learned from the captions.
    """
    if config.init:
        start = load_checkpoint(checkpoint_folder(config.init))
        before = _continued(start, config)
        own, tokenizer = with_languages(before, tokenizer or start.tokenizer, config.more_languages)
        network = CaptionNetwork(own, dropout=config.dropout, drop_path=config.drop_path)
        load_with_languages(network, before, start.network.state_dict())
        return network, tokenizer
    if tokenizer is None:
        captions = (text for source in sources for entry in source.split("train") for text in entry.captions)
        tokenizer = CaptionTokenizer.train(captions, config.vocab_size)
    own, tokenizer = with_languages(_new_config(config, tokenizer.size), tokenizer, config.more_languages)
    network = CaptionNetwork(
        own,
        dropout=config.dropout,
        drop_path=config.drop_path,
        pretrained=config.pretrained if config.encoder else bool(config.stem) and config.stem_weights == "timm",
    )
    if not config.encoder and config.stem and config.stem_weights == "packaged":
        load_packaged_stem(network)
    return network, tokenizer


def inherited_text(config: TrainConfig, network: CaptionNetwork) -> str:
    """Return what a run that continues a checkpoint keeps of it and what it does not, "" for a new network."""
    if not config.init:
        return ""
    old, new = read_config(checkpoint_folder(config.init)), network.config
    heads = f"{len(new.maps.heads)} map heads ({new.maps.head_mean} mean)" if new.maps.heads else "all map heads"
    defaults = GenerationOptions()
    changed = [f"{info.name} {value}" for info in fields_of(GenerationOptions)
               if (value := getattr(new.generation, info.name)) != getattr(defaults, info.name)]  # fmt: skip
    kept = f"kept: network, preprocessing, tokenizer, {heads}, decoding defaults ({', '.join(changed) or 'the usual ones'})"
    is_kept = new.languages[: len(old.languages)] == old.languages
    if is_kept:
        kept += f", languages {', '.join(old.languages)}"
    not_kept = []
    if old.maps.pointing is not None:
        not_kept.append(f"pointing {old.maps.pointing}, measured with other weights (`python -m evaluation maps` measures it)")
    if not is_kept:
        not_kept.append(f"languages {', '.join(old.languages)}, replaced by {', '.join(new.languages)}")
    more = ", ".join(new.languages[len(old.languages) :]) if is_kept else ""
    return f"{kept}; not kept: {'; '.join(not_kept) or 'no setting'}" + (f"; new languages: {more}" if more else "")


def choose_frozen_part(network: CaptionNetwork, config: TrainConfig) -> FrozenPart:
    """Return the part that is not trained: no gradient, and batch norms that keep their statistics.

    With `auto` that is the stem, or a whole encoder that has weights. Raises ConfigError if the network has no stem to freeze.
    """
    kind = config.freeze
    if kind == "auto":
        kind = "stem" if network.config.encoder.stem else "encoder" if config.init or config.pretrained else "none"
    part = FrozenPart(kind)
    part.module(network.encoder)
    return part


def _continued(start: Checkpoint, config: TrainConfig) -> ModelConfig:
    """Return the config of a network that continues a checkpoint: map heads and default options are kept.

    The measured pointing score is removed: it does not hold for the new weights. A language that the checkpoint was not trained
    with replaces its own.
    """
    old = start.config
    knows_language = config.language.lower() in [tag.lower() for tag in old.languages]
    return dataclasses.replace(
        old,
        maps=dataclasses.replace(old.maps, pointing=None),
        languages=old.languages if knows_language else (config.language,),
        language_token_ids=old.language_token_ids if knows_language else (),
        license=config.license or old.license,
        created=int(time.time()),
    )


def _encoder_configs(config: TrainConfig) -> tuple[EncoderConfig, ImageConfig]:
    if config.encoder:
        return timm_configs(config.encoder, config.image_size)
    encoder = EncoderConfig(
        hidden_size=config.hidden_size,
        num_layers=config.encoder_layers,
        num_heads=config.num_heads,
        patch_size=config.patch_size,
        stem=config.stem,
        stem_strides=config.stem_strides,
        class_token=config.class_token,
        num_register_tokens=config.num_register_tokens,
    )
    size = config.image_size or _IMAGE_SIZE
    return encoder, ImageConfig(height=size, width=size)


def _new_config(config: TrainConfig, vocab_size: int) -> ModelConfig:
    encoder, image = _encoder_configs(config)
    return ModelConfig(
        image=image,
        encoder=encoder,
        decoder=DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.decoder_layers,
            num_heads=config.num_heads,
            intermediate_size=4 * config.hidden_size,
            max_positions=_MAX_POSITIONS,
            encoder_hidden_size=encoder.hidden_size,
            null_key=config.null_key,
        ),
        generation=GenerationOptions(style="sentence"),
        languages=(config.language,),
        license=config.license,
        created=int(time.time()),
    )
