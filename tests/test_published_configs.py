"""With the published configs and random weights, captions equal those of `generate`: greedy, and as the configs decode."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    VisionEncoderDecoderModel,
    ViTImageProcessorPil,
)
from transformers.models.trocr.modeling_trocr import TrOCRSinusoidalPositionalEmbedding

from benchmarks import randomize_weights
from model import Captioner, load_checkpoint, prepare
from model.pretrained import convert_source
from tests.helpers import hypotheses_of
from tests.peers import SIZE, end_competes
from tests.published_configs import published
from tests.test_convert import edit, png, random_images
from tests.test_foreign_tokenizers import KINDS
from tests.test_sentencepiece import write_model

CHECKPOINTS = {  # tokenizer of each, its start, end and pad tokens, and a seed whose captions differ and end
    "blip-image-captioning-base": ("bert", ("[DEC]", "[SEP]", "[PAD]"), 1),
    "blip-image-captioning-large": ("bert", ("[DEC]", "[SEP]", "[PAD]"), 5),
    "vit-gpt2-image-captioning": ("gpt2", ("<|endoftext|>",) * 3, 2),
    "trocr-base-handwritten": ("roberta", ("</s>", "</s>", "<pad>"), 6),
    "trocr-base-printed": ("roberta", ("</s>", "</s>", "<pad>"), 6),
    "trocr-large-printed": ("roberta", ("</s>", "</s>", "<pad>"), 12),
    "trocr-small-handwritten": ("xlm_roberta", ("</s>", "</s>", "<pad>"), 8),
    "trocr-small-printed": ("xlm_roberta", ("</s>", "</s>", "<pad>"), 8),
}
BLIP, GPT2, TROCR = "blip-image-captioning-base", "vit-gpt2-image-captioning", "trocr-base-handwritten"
BEAMS = {"num_beams": 4, "max_length": 16, "early_stopping": True, "no_repeat_ngram_size": 3, "length_penalty": 2.0}
IN_FILE, IN_DECODER, AT_TOP, IN_TEXT = "generation_config.json", "decoder", "config.json", "text_config"


def write_published(folder, name, changes=(), *, without=()):
    """Write a published checkpoint with random weights; `changes` are (part, fields), `without` names files that it lacks."""
    kind, tokens, seed = CHECKPOINTS[name]
    inner = KINDS[kind]
    ids = {role: inner.token_to_id(token) for role, token in zip(("start", "end", "pad"), tokens, strict=True)}
    files = published(name, inner.get_vocab_size(), ids)
    for part, fields in changes:
        config = files["config.json"]
        (config if part == AT_TOP else config[part] if part in config else files.setdefault(part, {})).update(fields)
    folder.mkdir()
    for file, document in files.items():
        if file not in without:
            (folder / file).write_text(json.dumps(document))
    if kind == "xlm_roberta":
        write_model(folder)
    else:
        (folder / "tokenizer.json").write_text(inner.to_str())
    peer_class = BlipForConditionalGeneration if name.startswith("blip") else VisionEncoderDecoderModel
    peer = randomize_weights(peer_class(AutoConfig.from_pretrained(folder)).requires_grad_(False), seed)
    for parameter_name, value in peer.named_parameters():
        if re.search(r"(crossattention.*(output\.dense|c_proj)|encoder_attn\.out_proj)\.weight", parameter_name):
            value.mul_(8)  # captions that depend on the image
    save_weights(peer, folder)
    save_weights(end_competes(load_peer(peer_class, folder), -2.5), folder)  # which token ends captions is known after loading
    return peer_class


def images():
    """Yield images of noise, and of colors, which differ more."""
    yield from random_images()
    for channel, (first, last) in enumerate(((0, 255), (255, 60), (10, 90))):
        values = np.full((SIZE, SIZE, 3), 40 * channel, dtype=np.uint8)
        values[..., channel] = np.linspace(first, last, SIZE)
        yield Image.fromarray(values if channel else values.transpose(1, 0, 2))


def save_weights(peer, folder):
    peer.save_pretrained(folder / "scratch")  # it writes config files too
    shutil.copy(folder / "scratch/model.safetensors", folder)
    shutil.rmtree(folder / "scratch")


def load_peer(peer_class, folder, dtype=torch.float32):
    peer = peer_class.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    for module in peer.modules():  # transformers 5.23 leaves the sinusoids of a loaded TrOCR on the meta device
        if isinstance(module, TrOCRSinusoidalPositionalEmbedding):
            module.weights = module.get_embedding(SIZE * 4, module.embedding_dim, module.padding_idx)
    return peer


def captions_of_both(folder, peer_class, dtype, *, greedy):
    """Return the tokens of six captions, ours and the peer's, and our default options."""
    if not folder.with_name("ours").exists():
        convert_source(folder, folder.with_name("ours"))
    checkpoint = load_checkpoint(folder.with_name("ours"))
    network, decoder = checkpoint.network.to(dtype).requires_grad_(False), checkpoint.config.decoder
    options = checkpoint.config.generation
    pixels = torch.stack([prepare(png(image), checkpoint.config.image).pixels for image in images()]).to(dtype)
    chosen = dataclasses.replace(options, strategy="greedy") if greedy else options
    hypotheses = hypotheses_of(network, checkpoint.tokenizer, network.encode(pixels), [chosen] * len(pixels))
    ours = [hypotheses[image][0].tokens for image in range(len(pixels))]
    peer = load_peer(peer_class, folder, dtype)
    rows = peer.generate(pixel_values=pixels, **({"num_beams": 1} if greedy else {})).tolist()
    assert all(row[0] == decoder.bos_token_id for row in rows)
    theirs = []
    for row in rows:
        end = next((at for at, token in enumerate(row[1:]) if token in decoder.eos_token_ids), len(row) - 1)
        theirs.append(tuple(row[1 : end + 1]))
    return ours, theirs, options


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_captions_with_the_published_configs_equal_those_of_generate(name, tmp_path):
    peer_class = write_published(tmp_path / "source", name)
    captions = set()
    for dtype in (torch.float32, torch.float64):
        for greedy in (True, False):
            ours, theirs, options = captions_of_both(tmp_path / "source", peer_class, dtype, greedy=greedy)
            assert ours == theirs, (dtype, greedy)
            captions |= set(ours)
    assert (options.strategy, options.max_new_tokens, options.min_new_tokens) == ("greedy", 20, 0)
    lengths = [len(caption) for caption in captions]
    assert len(captions) >= 3, "captions depend on the image; else the test shows nothing"
    assert min(lengths) < 20 == max(lengths), "some captions end by themselves, and some at the limit"


@pytest.mark.parametrize("name", ["blip-image-captioning-base", "vit-gpt2-image-captioning", "trocr-small-printed"])
def test_pixels_with_the_published_preprocessing_equal_those_of_the_processor(name, tmp_path):
    write_published(tmp_path / "source", name)
    convert_source(tmp_path / "source", tmp_path / "ours")
    processor_class = BlipImageProcessorPil if name.startswith("blip") else ViTImageProcessorPil
    processor = processor_class.from_pretrained(tmp_path / "source")
    for image in random_images():
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        assert expected.shape == (3, SIZE, SIZE)
        assert torch.equal(prepare(png(image), load_checkpoint(tmp_path / "ours").config.image).pixels, expected)


FIELDS = [  # checkpoint, what is changed where, files that it lacks, and the options that `generate` then uses
    (BLIP, [(IN_TEXT, {"max_length": 12})], (), ("greedy", 20, 0)),
    (BLIP, [(IN_TEXT, {"num_beams": 3, "min_length": 5, "repetition_penalty": 1.5})], (), ("greedy", 20, 0)),
    (BLIP, [(IN_TEXT, {"max_new_tokens": 7, "min_new_tokens": 4})], (), ("greedy", 7, 4)),
    (BLIP, [(IN_TEXT, {"max_new_tokens": 9, "max_length": 30, "min_length": 9})], (), ("greedy", 9, 0)),
    (BLIP, [(AT_TOP, {"num_beams": 3, "max_new_tokens": 5})], (), ("greedy", 20, 0)),
    (BLIP, [(IN_FILE, {"num_beams": 3, "max_length": 8, "max_new_tokens": 5})], (), ("greedy", 20, 0)),
    (GPT2, [(IN_FILE, BEAMS)], (), ("beam", 15, 0)),
    (GPT2, [(IN_FILE, {"max_length": 20})], (), ("greedy", 19, 0)),
    (GPT2, [(IN_FILE, {"max_new_tokens": 9, "max_length": 12, "min_length": 6})], (), ("greedy", 9, 5)),
    (GPT2, [(IN_FILE, {"max_new_tokens": 8, "min_new_tokens": 6, "min_length": 2})], (), ("greedy", 8, 6)),
    (GPT2, [(IN_FILE, {"max_length": 10, "min_length": 30})], (), ("greedy", 9, 9)),
    (GPT2, [("decoder", BEAMS)], (), ("greedy", 20, 0)),
    (GPT2, [(AT_TOP, BEAMS)], (), ("greedy", 20, 0)),
    (GPT2, [], (IN_FILE,), ("greedy", 19, 0)),
    (GPT2, [("decoder", BEAMS)], (IN_FILE,), ("beam", 15, 0)),
    (GPT2, [(AT_TOP, BEAMS)], (IN_FILE,), ("beam", 15, 0)),
    (GPT2, [("decoder", BEAMS), (AT_TOP, {"num_beams": 2, "max_length": 9})], (IN_FILE,), ("beam", 8, 0)),
    (GPT2, [("encoder", BEAMS)], (IN_FILE,), ("greedy", 19, 0)),
    (GPT2, [("decoder", {"repetition_penalty": 1.7, "min_length": 4})], (IN_FILE,), ("greedy", 19, 3)),
    (TROCR, [(IN_FILE, BEAMS | {"max_length": 64, "num_return_sequences": 1})], (), ("beam", 63, 0)),
    (TROCR, [(AT_TOP, BEAMS | {"max_length": 33}), (IN_FILE, {})], (IN_FILE,), ("beam", 32, 0)),
    (TROCR, [(IN_FILE, {"num_beams": 5, "early_stopping": "never", "length_penalty": -1.0})], (), ("beam", 20, 0)),
    (TROCR, [(IN_FILE, {"decoder_start_token_id": None})], (), ("greedy", 20, 0)),
    (TROCR, [(IN_FILE, {"eos_token_id": [2, 3]})], (), ("greedy", 20, 0)),
    (TROCR, [(IN_FILE, BEAMS | {"eos_token_id": [3, 0, 2]})], (), ("beam", 15, 0)),
    (TROCR, [(IN_FILE, {"num_beams": 4, "eos_token_id": [2, 0, 3], "min_new_tokens": 3})], (), ("beam", 20, 3)),
]


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default", "ignore:Unfeasible length constraints")
@pytest.mark.parametrize(("name", "changes", "without", "expected"), FIELDS)
def test_generation_settings_are_read_where_generate_reads_them(name, changes, without, expected, tmp_path):
    peer_class = write_published(tmp_path / "source", name, changes, without=without)
    ours, theirs, options = captions_of_both(tmp_path / "source", peer_class, torch.float64, greedy=False)
    assert ours == theirs
    assert (options.strategy, options.max_new_tokens, options.min_new_tokens) == expected


def test_the_score_of_a_caption_contains_the_end_token_that_ended_it(tmp_path):
    changes = [(IN_FILE, {"num_beams": 4, "eos_token_id": [2, 0, 3]})]
    write_published(tmp_path / "source", TROCR, changes)
    convert_source(tmp_path / "source", tmp_path / "ours")
    edit(tmp_path / "ours", "config.json", lambda c: c["decoder"].update(eos_token_id=0, more_eos_token_ids=[3, 2]))
    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    network = load_checkpoint(tmp_path / "ours").network.requires_grad_(False)
    ends = set()
    for image in images():
        view = prepare(png(image), captioner.image_config)
        hypothesis = hypotheses_of(network, captioner.tokenizer, network.encode(view.pixels[None]), [captioner.config.generation])
        (best,) = hypothesis[0]
        (result,) = captioner.caption([view])
        assert result.captions[0].log_probability == pytest.approx(best.log_probability, abs=1e-4)
        ends.add(best.end)
    assert ends - {None}, "some caption ended with another token than the first"
