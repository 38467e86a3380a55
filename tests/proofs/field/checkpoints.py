"""The report's rows on checkpoints of other programs: conversion, and captions beside transformers' `generate`."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from model import Captioner, CheckpointError, Hypothesis, load_checkpoint
from model.__main__ import main
from model.generation import Generation
from model.prefix import prefix_ids
from model.pretrained import convert_source
from tests.proofs.field.row import Row


def _convert(source: Path, folder: Path) -> tuple[int, str]:
    """Run `python -m model convert`; returns the exit status and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(["convert", str(source), str(folder)])
    return status, " ".join(printed.getvalue().split())


def _captions(folder: Path, pixels: torch.Tensor) -> list[Hypothesis]:
    """Return the best caption of each image, with the checkpoint's own default options."""
    checkpoint = load_checkpoint(folder)
    network = checkpoint.network.requires_grad_(False)
    generation, options = Generation(network, checkpoint.tokenizer), checkpoint.config.generation
    prefix = prefix_ids(checkpoint.config, checkpoint.tokenizer, prompt=options.prompt)
    count = pixels.size(0)
    with torch.no_grad():
        generation.add(network.start(network.encode(pixels)), list(range(count)), [options] * count, [prefix] * count)
        finished: dict[object, list[Hypothesis]] = {}
        while generation.num_rows:
            finished |= generation.step()
    return [finished[image][0] for image in range(count)]


def _equals_generate(source: Path, folder: Path) -> tuple[bool, str]:
    """Convert a source, and compare the captions of six random images with those of `generate` without arguments."""
    from transformers import BlipForConditionalGeneration, VisionEncoderDecoderModel  # after model, which prepares torch

    convert_source(source, folder)
    config = load_checkpoint(folder).config
    pixels = torch.randn(6, 3, config.image.height, config.image.width, generator=torch.Generator().manual_seed(0))
    kind = BlipForConditionalGeneration if config.source_family == "blip" else VisionEncoderDecoderModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the length is transformers' own default
        rows = kind.from_pretrained(source).eval().generate(pixel_values=pixels).tolist()
    equal, lengths = True, []
    for row, best in zip(rows, _captions(folder, pixels), strict=True):
        end = next((at for at, token in enumerate(row[1:]) if token in config.decoder.eos_token_ids), len(row) - 1)
        equal = equal and tuple(row[1 : end + 1]) == best.tokens
        lengths.append(len(best.tokens))
    options = config.generation
    verb = "equal" if equal else "differ from"
    return (
        equal,
        f"captions {verb} generate's ({max(lengths)} tokens at most, {options.strategy}, {options.max_new_tokens} allowed)",
    )


def _questions(inputs: Path, scratch: Path) -> tuple[bool, str]:
    status, printed = _convert(inputs / "16_blip_vqa", scratch / "ours")
    return status == 1 and "question answering" in printed and not (scratch / "ours").exists(), printed


def _text_config(inputs: Path, scratch: Path) -> tuple[bool, str]:
    plain = _equals_generate(inputs / "17_blip_text_config", scratch / "plain")
    copy = _copy(inputs / "17_blip_text_config", scratch / "source")
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["num_beams"] = config["num_beams"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    beams = _equals_generate(copy, scratch / "beams")
    options = load_checkpoint(scratch / "beams").config.generation
    return plain[0] and beams[
        0
    ] and options.max_new_tokens == 20 and options.strategy == "greedy", f"{plain[1]}; with num_beams 3: {beams[1]}"


def _added_tokens(inputs: Path, scratch: Path) -> tuple[bool, str]:
    equal, result = _equals_generate(inputs / "18_gpt2_added_tokens", scratch / "ours")
    tokenizer = load_checkpoint(scratch / "ours").tokenizer
    return equal and tokenizer.id_of("[PAD]") in tokenizer.special_ids, f"[PAD] is id {tokenizer.id_of('[PAD]')}; {result}"


def _listed(name: str, folder: str) -> Row:
    def run(inputs: Path, scratch: Path) -> tuple[bool, str]:
        status, printed = _convert(inputs / folder, scratch / "ours")
        card = Captioner.load(scratch / "ours").card
        rows = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        return status == 0 and len(rows) == 1 and name in printed, rows[0] if rows else printed

    return Row(folder, f"converted; the card lists {name}", run)


def _shards(inputs: Path, scratch: Path) -> tuple[bool, str]:
    source = _copy(inputs / "21_stop_strings", scratch / "source")
    convert_source(source, scratch / "whole")
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    weight_map = {name: files[index % 2] for index, name in enumerate(tensors)}
    for file in files:
        torch.save({name: value for name, value in tensors.items() if weight_map[name] == file}, source / file)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    convert_source(source, scratch / "sharded")
    one, other = (load_checkpoint(scratch / name).network.state_dict() for name in ("whole", "sharded"))
    equal = all(torch.equal(value, other[name]) for name, value in one.items())
    (source / files[1]).unlink()
    try:
        convert_source(source, scratch / "broken")
    except CheckpointError as error:
        message = str(error)
    return equal and files[1] in message, f"the same weights; without a shard: …{message[message.index(files[1]) :]}"


def _several_ends(inputs: Path, scratch: Path) -> tuple[bool, str]:
    source = _copy(inputs / "21_stop_strings", scratch / "source")
    settings = json.loads((source / "generation_config.json").read_text())
    settings["eos_token_id"] = [settings["eos_token_id"], 0, 3]
    del settings["stop_strings"]
    (source / "generation_config.json").write_text(json.dumps(settings))
    equal, result = _equals_generate(source, scratch / "ours")
    return equal, f"end ids {load_checkpoint(scratch / 'ours').config.decoder.eos_token_ids}; {result}"


def _sentence_pieces(inputs: Path, scratch: Path) -> tuple[bool, str]:
    from tests.test_published_configs import write_published

    source = scratch / "trocr-small"
    write_published(source, "trocr-small-printed")
    names = sorted(path.name for path in source.iterdir())
    equal, result = _equals_generate(source, scratch / "ours")
    return (
        equal and "tokenizer.json" not in names,
        f"read from {', '.join(name for name in names if 'sentence' in name)}; {result}",
    )


def _copy(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


ROWS = [
    Row("16_blip_vqa", "refused: architectures says question answering", _questions),
    Row("17_blip_text_config", "the captions of generate: 20 tokens, greedy, whatever text_config says", _text_config),
    Row("18_gpt2_added_tokens", "converted: added_tokens.json is read", _added_tokens),
    _listed("length_penalty", "20_length_penalty_10"),
    _listed("stop_strings", "21_stop_strings"),
    Row("sharded pytorch_model.bin", "read; a missing shard is named", _shards),
    Row("TrOCR with sentencepiece only", "read: XLM-RoBERTa's unigram model", _sentence_pieces),
    Row("several end ids", "read: each ends a caption, as in generate", _several_ends),
]
