"""The files of a checkpoint to convert: a folder of transformers, or a .pth of BLIP's authors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import FORMAT, load_tensors
from model.config import ImageConfig
from model.errors import CheckpointError
from model.fields import fields_of
from model.options import GenerationOptions
from model.pretrained.authors import authors_config, authors_preprocessing, authors_settings
from model.pretrained.vocabulary import BLIP, source_tokenizer, with_blips_tokens
from model.tokenizer import CaptionTokenizer

_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_UNSUPPORTED = (
    "do_sample", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids",
    "encoder_no_repeat_ngram_size", "penalty_alpha", "sequence_bias", "exponential_decay_length_penalty",
)  # fmt: skip
_MAX_WORDS = 60  # so that only the source's token limits apply


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
    not_adopted: tuple[str, ...]  # decoding settings that have no equivalent here


def read_source(path: Path) -> SourceCheckpoint:
    """Read a folder or a .pth. Raises CheckpointError that names the file or field that is wrong, ConfigError."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; name a folder, a .pth or a hub id such as organization/name")
    return _authors(path) if path.is_file() else _folder(path)


def _folder(folder: Path) -> SourceCheckpoint:
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json", required=False)
    if config.get("format") == FORMAT:
        raise CheckpointError(f"{folder} is a checkpoint of this program already; use it as it is")
    path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{folder} has no weights; it needs one of {', '.join(_WEIGHTS)}")
    image = _image_config(_preprocessing(folder), folder)
    tokenizer = source_tokenizer(folder)
    if config.get("model_type") == "blip":
        tokenizer = with_blips_tokens(tokenizer, (config.get("text_config") or {}).get("bos_token_id", -1))
        # BLIP's generate is its text decoder's, which ignores the outer generation_config.json.
        generation = {}
    options = _generation(generation, config)
    weights = read_weights(path)
    return SourceCheckpoint(config, generation, image, tokenizer, weights, path, options, _not_adopted(generation, config))


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
    options = dataclasses.replace(_generation(generation, config), prompt=prompt)
    return SourceCheckpoint(config, generation, image, tokenizer, tensors, path, options, ())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, or of the shards of an index, in float32. Pickles are read as weights only."""
    if path.suffix in (".safetensors", ".json"):
        tensors: Any = load_tensors(path)
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises many types
            raise CheckpointError(f"{path} cannot be read as weights ({error}); copy it again, or use safetensors") from error
        if isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
            tensors = tensors["model"]
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise CheckpointError(f"{path} does not contain named tensors; use a file of weights")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


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


def _image_config(config: dict[str, Any], source: Path) -> ImageConfig:
    size, crop = config.get("size"), config.get("crop_size") if config.get("do_center_crop") else None
    default = 3 if "Blip" in str(config.get("image_processor_type", "")) else 2  # transformers' own defaults
    resample = _RESAMPLING.get(config.get("resample", default))
    if resample is None or not config.get("do_resize", True):
        raise CheckpointError(f"{source}/preprocessor_config.json has an unknown resize; supported are bilinear and bicubic")
    if not config.get("do_rescale", True) or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{source}/preprocessor_config.json has an unknown rescale_factor; supported is 1/255")
    resized, cropped = _edges(size, source), _edges(crop or size, source)
    return ImageConfig(
        height=cropped[0],
        width=cropped[1],
        resize_to=resized if resized != cropped else (),
        resample=resample,  # type: ignore[arg-type]  # one of the two
        full_decode=True,
        mean=tuple(config["image_mean"]) if config.get("do_normalize", True) else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if config.get("do_normalize", True) else (1.0, 1.0, 1.0),
    )


def _edges(size: Any, source: Path) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
        raise CheckpointError(f"{source}/preprocessor_config.json has the size {size!r}; supported is a height and a width")
    return int(size["height"]), int(size["width"])


def _generation(generation: dict[str, Any], config: dict[str, Any]) -> GenerationOptions:
    """Return the source's default options; an option that it does not set has transformers' default.

    Options with transformers' names are read by their declarations (model/options.py), within their ranges.
    """
    decoder = config.get("decoder") or config.get("text_config") or {}

    def value(name: str, default: Any = None) -> Any:
        return next((part[name] for part in (generation, config, decoder) if part.get(name) is not None), default)

    named = {info.name: value(info.name) for info in fields_of(GenerationOptions) if value(info.name) is not None}
    if not value("do_sample", False):
        named = {name: option for name, option in named.items() if name not in ("top_k", "min_p")}
    num_beams = min(8, int(value("num_beams", 1)))
    # max_length counts the start token; without one `generate` makes 20 tokens.
    max_new_tokens = int(value("max_new_tokens", 0)) or int(value("max_length", 21)) - 1
    stopping = value("early_stopping", False)
    return GenerationOptions(
        **named
        | {
            "strategy": "beam" if num_beams > 1 else "greedy",
            "num_beams": max(2, num_beams),
            "num_return_sequences": 1,
            "max_words": _MAX_WORDS,
            "max_new_tokens": max(1, min(256, max_new_tokens)),
            "min_new_tokens": int(value("min_new_tokens", 0)) or max(0, int(value("min_length", 0)) - 1),
            "early_stopping": stopping if isinstance(stopping, bool) else "never",
        }
    )


def _not_adopted(generation: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    """Return the decoding settings that change captions and have no equivalent here."""
    parts = (generation, config, config.get("decoder") or {})
    values = {name: next((part[name] for part in parts if part.get(name)), None) for name in _UNSUPPORTED}
    num_beams = next((part["num_beams"] for part in parts if part.get("num_beams") is not None), 1)
    many = (f"num_beams {num_beams} (8 at most)",) if num_beams > 8 else ()
    return many + tuple(f"{name} {value}" for name, value in values.items() if value)


def _json(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        document = json.loads(_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); copy it again from its source") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object; copy it again from its source")
    return document


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); a source needs it: write it with save_pretrained") from error
