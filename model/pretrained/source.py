"""The files of a checkpoint to convert: a folder of transformers, or a .pth of BLIP's authors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from model.checkpoint import FORMAT, parse_json
from model.config import ImageConfig
from model.errors import CheckpointError
from model.options import GenerationOptions
from model.pretrained.architectures import family_of
from model.pretrained.authors import authors_config, authors_preprocessing, authors_settings
from model.pretrained.florence import ANSWER_TOKENS, MICROSOFTS_TOKENS
from model.pretrained.settings import NotAdopted, adopted_options, used_settings
from model.pretrained.source_config import SourceConfig
from model.pretrained.vocabulary import BLIP, source_tokenizer, with_blips_tokens
from model.pretrained.weights import read_weights, weights_file
from model.tokenizer import CaptionTokenizer

_BICUBIC = ("Blip", "CLIP", "Beit", "DeiT", "Bit")  # image processors whose own default is bicubic
_PAGES = ("Donut", "Nougat")  # image processors that keep the aspect ratio and pad
_RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """The files of a source, read but not converted: config and generation with transformers' names."""

    config: dict[str, Any]
    generation: dict[str, Any]  # the ids and lengths that `generate` uses
    image: ImageConfig
    tokenizer: CaptionTokenizer
    tensors: dict[str, Tensor]  # float32
    weights: Path
    options: GenerationOptions  # its default options
    not_adopted: tuple[NotAdopted, ...]  # its generation settings that are not taken over


def read_source(path: Path) -> SourceCheckpoint:
    """Read a folder or a .pth. Raises CheckpointError that names the file or field that is wrong, ConfigError."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; name a folder, a .pth or a hub id such as organization/name")
    return _authors(path) if path.is_file() else _folder(path)


def _folder(folder: Path) -> SourceCheckpoint:
    config = _json(folder / "config.json")
    if config.get("format") == FORMAT:
        raise CheckpointError(f"{folder} is a checkpoint of this program already; use it as it is")
    family = family_of(config)
    path = weights_file(folder)
    image = _image_config(_preprocessing(folder), folder)
    file = folder / "generation_config.json"
    settings, unread = used_settings(config, _json(file) if file.exists() else None)
    options, left_out = adopted_options(settings)
    if family == "florence2" and not {"max_length", "max_new_tokens"} & settings.keys():
        options = dataclasses.replace(options, max_new_tokens=ANSWER_TOKENS)
    text = config.get("decoder" if family == "vision-encoder-decoder" else "text_config")
    vocab_size = text.get("vocab_size") if isinstance(text, dict) else None
    tokenizer = source_tokenizer(folder, vocab_size if isinstance(vocab_size, int) else 0)
    if family == "blip" and isinstance(text, dict):
        tokenizer = with_blips_tokens(tokenizer, text.get("bos_token_id", -1))
    if family == "florence2" and tokenizer.id_of(MICROSOFTS_TOKENS[0]) is None:  # Microsoft's files have BART's vocabulary only
        tokenizer = tokenizer.extended(MICROSOFTS_TOKENS)
    return SourceCheckpoint(config, settings, image, tokenizer, read_weights(path), path, options, (*left_out, *unread))


def _authors(path: Path) -> SourceCheckpoint:
    folder = path.parent
    if path.suffix != ".pth":
        raise CheckpointError(f"{path} is a file; name its folder, with config and tokenizer, or a .pth of BLIP")
    yamls = sorted(folder.glob("caption*.yaml"))
    if not (folder / "med_config.json").exists() or len(yamls) != 1:
        raise CheckpointError(
            f"the folder of {path.name} must contain med_config.json and caption_coco.yaml of BLIP's configs folder, and BERT's "
            "vocab.txt or tokenizer.json (bert-base-uncased): copy them there"
        )
    bert = source_tokenizer(folder)
    tokenizer = bert if bert.id_of(BLIP[0]) is not None else bert.extended(BLIP)
    start, end = tokenizer.id_of(BLIP[0]), tokenizer.id_of("[SEP]")
    if start is None or end is None:
        raise CheckpointError(f"{folder}: its tokenizer has no [SEP]; use that of bert-base-uncased")
    tensors = read_weights(path)
    size, generation, prompt = authors_settings(_text(yamls[0]), lambda text: len(tokenizer.encode(text)))
    config = authors_config(tensors, _json(folder / "med_config.json"), start, end)
    image = _image_config(authors_preprocessing(size), folder)
    options, left_out = adopted_options(generation)
    options = dataclasses.replace(options, prompt=prompt)
    return SourceCheckpoint(config, generation, image, tokenizer, tensors, path, options, left_out)


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Return the preprocessing config; newer files have it inside processor_config.json."""
    path = folder / "processor_config.json"
    image_processor = _json(path, required=False).get("image_processor")
    if isinstance(image_processor, dict) and not (folder / "preprocessor_config.json").exists():
        return image_processor
    if not (folder / "preprocessor_config.json").exists():
        raise CheckpointError(
            f"{folder} has no preprocessor_config.json (or processor_config.json); write it with "
            "AutoImageProcessor.from_pretrained(…).save_pretrained, or copy it from the source"
        )
    return _json(folder / "preprocessor_config.json")


def _image_config(values: dict[str, Any], source: Path) -> ImageConfig:
    config = SourceConfig(values, file=f"{source}/preprocessor_config.json")
    kind = config.text("image_processor_type", config.text("feature_extractor_type", ""))
    resample = config.integer("resample", 3 if kind.startswith(_BICUBIC) else 2)  # their own defaults
    if resample not in _RESAMPLING or not config.boolean("do_resize", True):
        raise CheckpointError(f"{source}/preprocessor_config.json has an unknown resize; supported are bilinear and bicubic")
    if not config.boolean("do_rescale", True) or abs(config.number("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{source}/preprocessor_config.json has an unknown rescale_factor; supported is 1/255")
    is_page = kind.startswith(_PAGES)
    if is_page and (config.boolean("do_align_long_axis", False) or not config.boolean("do_pad", True)):
        raise CheckpointError(f"{source}/preprocessor_config.json turns pages or does not pad them; supported is do_pad alone")
    is_cropped = config.boolean("do_center_crop", False) and config.has("crop_size")
    shorter_edge = config.shorter_edge("size") if is_cropped else None
    resized = (shorter_edge,) if shorter_edge else config.size("size")
    cropped = config.size("crop_size") if is_cropped else config.size("size")
    is_normalized = config.boolean("do_normalize", True)
    return ImageConfig(
        height=cropped[0],
        width=cropped[1],
        resize_to=resized if resized != cropped else (),
        pad=is_page,
        crop_margin=kind.startswith("Nougat") and config.boolean("do_crop_margin", True),
        resample=_RESAMPLING[resample],
        full_decode=True,
        mean=config.numbers("image_mean", 3) if is_normalized else (0.0, 0.0, 0.0),
        std=config.numbers("image_std", 3) if is_normalized else (1.0, 1.0, 1.0),
    )


def _json(path: Path, *, required: bool = True) -> dict[str, Any]:
    return parse_json(_text(path), path) if required or path.exists() else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CheckpointError(f"{path} cannot be read ({reason}); a source needs it: write it with save_pretrained") from error
