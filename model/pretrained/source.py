"""What a source is made of, read from its files: a folder of transformers, or a .pth of BLIP's authors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import FORMAT, load_tensors
from model.config import GenerationOptions, ImageConfig
from model.errors import CheckpointError
from model.pretrained.authors import authors_config, authors_preprocessing, authors_settings
from model.pretrained.vocabulary import BLIP, source_tokenizer, with_blips_tokens
from model.tokenizer import CaptionTokenizer

_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_UNKNOWN_SETTINGS = (
    "do_sample", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids",
    "encoder_no_repeat_ngram_size", "penalty_alpha", "sequence_bias", "exponential_decay_length_penalty",
)  # fmt: skip
_MOST = 60  # words, and what options.max_words allows


@dataclass(frozen=True, slots=True)
class Source:
    """A source, read but not converted: config and generation in transformers' words."""

    config: dict[str, Any]
    generation: dict[str, Any]  # ids and lengths that `generate` goes by
    image: ImageConfig
    tokenizer: CaptionTokenizer
    tensors: dict[str, Tensor]  # float32
    weights: Path
    options: GenerationOptions  # its own defaults of decoding
    left_out: tuple[str, ...]  # settings of decoding that are not taken over


def read_source(place: Path) -> Source:
    """Read a folder or a .pth. Raises CheckpointError that names the file or field that is wrong, ConfigError."""
    if not place.exists():
        raise CheckpointError(f"{place} does not exist; name a folder, a .pth or a hub id such as organisation/name")
    return _authors(place) if place.is_file() else _folder(place)


def _folder(folder: Path) -> Source:
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json", needed=False)
    if config.get("format") == FORMAT:
        raise CheckpointError(f"{folder} is a checkpoint of this program already; serve it as it is")
    path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{folder} has no weights; it needs one of {', '.join(_WEIGHTS)}")
    image = _image_config(_preprocessing(folder), folder)
    tokenizer = source_tokenizer(folder)
    if config.get("model_type") == "blip":
        tokenizer = with_blips_tokens(tokenizer, (config.get("text_config") or {}).get("bos_token_id", -1))
        # BLIP's generate is its text decoder's, which does not see the outer generation_config.json.
        generation = {}
    options = _generation(generation, config)
    return Source(config, generation, image, tokenizer, read_weights(path), path, options, _left_out(generation, config))


def _authors(path: Path) -> Source:
    folder = path.parent
    if path.suffix != ".pth":
        raise CheckpointError(f"{path} is a file; name its folder, which has config and tokenizer too, or a .pth of BLIP")
    yamls = sorted(folder.glob("caption*.yaml"))
    if not (folder / "med_config.json").exists() or len(yamls) != 1:
        raise CheckpointError(
            f"beside {path.name} must lie med_config.json and caption_coco.yaml of BLIP's configs folder, and BERT's vocab.txt "
            "or tokenizer.json (bert-base-uncased): copy them there"
        )
    bert = source_tokenizer(folder)
    tokenizer = bert if bert.id_of(BLIP[0]) is not None else bert.extended(BLIP)
    start, end = tokenizer.id_of(BLIP[0]), tokenizer.id_of("[SEP]")
    if start is None or end is None:
        raise CheckpointError(f"{folder}: its tokenizer has no [SEP]; take that of bert-base-uncased")
    tensors = read_weights(path)
    size, generation, prompt = authors_settings(_text(yamls[0]), lambda text: len(tokenizer.encode(text)))
    config = authors_config(tensors, _json(folder / "med_config.json"), start, end)
    image = _image_config(authors_preprocessing(size), folder)
    options = dataclasses.replace(_generation(generation, config), prompt=prompt)
    return Source(config, generation, image, tokenizer, tensors, path, options, ())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, or of the shards that an index names, in float32. Pickles are read as weights, never run."""
    if path.suffix in (".safetensors", ".json"):
        found: Any = load_tensors(path)
    else:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling fails in many ways
            raise CheckpointError(f"{path} cannot be read as weights ({error}); copy it again, or use safetensors") from error
        if isinstance(found, dict) and isinstance(found.get("model"), dict):
            found = found["model"]
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise CheckpointError(f"{path} holds something else than named tensors; it is no file of weights")
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Return what is told of preprocessing; newer files keep it inside those of the whole processor."""
    path = folder / "processor_config.json"
    whole = _json(path, needed=False).get("image_processor")
    if isinstance(whole, dict) and not (folder / "preprocessor_config.json").exists():
        return whole
    if not (folder / "preprocessor_config.json").exists():
        raise CheckpointError(
            f"{folder} has no preprocessor_config.json (or processor_config.json); write it with "
            "AutoImageProcessor.from_pretrained(…).save_pretrained, or copy it from the source"
        )
    return _json(folder / "preprocessor_config.json")


def _image_config(told: dict[str, Any], source: Path) -> ImageConfig:
    size, crop = told.get("size"), told.get("crop_size") if told.get("do_center_crop") else None
    usual = 3 if "Blip" in str(told.get("image_processor_type", "")) else 2  # what transformers takes where nothing is told
    resample = _RESAMPLING.get(told.get("resample", usual))
    if resample is None or not told.get("do_resize", True):
        raise CheckpointError(f"{source}/preprocessor_config.json resizes in a way that is not known; bilinear and bicubic are")
    if not told.get("do_rescale", True) or abs(told.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{source}/preprocessor_config.json scales pixels in a way that is not known; to 0..1 is")
    squashed, seen = _edges(size, source), _edges(crop or size, source)
    return ImageConfig(
        height=seen[0],
        width=seen[1],
        crop=squashed if squashed != seen else (),
        resample=resample,  # type: ignore[arg-type]  # one of the two
        exact=True,
        mean=tuple(told["image_mean"]) if told.get("do_normalize", True) else (0.0, 0.0, 0.0),
        std=tuple(told["image_std"]) if told.get("do_normalize", True) else (1.0, 1.0, 1.0),
    )


def _edges(size: Any, source: Path) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
        raise CheckpointError(f"{source}/preprocessor_config.json has the size {size!r}; known is a height and a width")
    return int(size["height"]), int(size["width"])


def _generation(told: dict[str, Any], config: dict[str, Any]) -> GenerationOptions:
    """Return the source's own defaults of decoding; what it does not say is transformers' own default."""
    decoder = config.get("decoder") or config.get("text_config") or {}

    def value(name: str, default: Any) -> Any:
        return next((place[name] for place in (told, config, decoder) if place.get(name) is not None), default)

    beams = min(8, int(value("num_beams", 1)))
    # max_length counts the start token; without one `generate` makes 20 tokens.
    most = int(value("max_new_tokens", 0)) or int(value("max_length", 21)) - 1
    return GenerationOptions(
        strategy="beam" if beams > 1 else "greedy",
        beams=max(2, beams),
        max_words=_MOST,
        max_tokens=max(1, min(256, most)),
        min_tokens=int(value("min_new_tokens", 0)) or max(0, int(value("min_length", 0)) - 1),
        length_penalty=float(value("length_penalty", 1.0)),
        early_stopping={True: "true", False: "false"}.get(value("early_stopping", False), "never"),  # type: ignore[arg-type]
        no_repeat=int(value("no_repeat_ngram_size", 0)),
        repetition_penalty=float(value("repetition_penalty", 1.0)),
        temperature=float(value("temperature", 1.0)),
        top_k=int(value("top_k", 0)) if value("do_sample", False) else 0,
        top_p=float(value("top_p", 1.0)),
    )


def _left_out(told: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    """Return the settings of decoding that change captions and that we do not have."""
    places = (told, config, config.get("decoder") or {})
    found = {name: next((place[name] for place in places if place.get(name)), None) for name in _UNKNOWN_SETTINGS}
    beams = next((place["num_beams"] for place in places if place.get("num_beams") is not None), 1)
    many = (f"num_beams {beams} (8 at most)",) if beams > 8 else ()
    return many + tuple(f"{name} {value}" for name, value in found.items() if value)


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again from its source") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no JSON object; copy it again from its source")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); a source needs it: write it with save_pretrained") from error
