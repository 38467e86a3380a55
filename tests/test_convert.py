"""A folder that transformers wrote becomes a checkpoint: its captions are the peer's, with maps; or nothing is written."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from transformers import BlipImageProcessorPil, PreTrainedTokenizerFast, ViTImageProcessorPil

from model import Captioner, CheckpointError, load_checkpoint, prepare
from model.__main__ import main
from model.pretrained import convert_source
from service import Settings, create_app
from tests.peers import SIZE, build, end_competes
from tests.test_foreign_tokenizers import KINDS

TOKENIZERS = {  # the tokenizer of each, and its tokens of start, end and pad
    "vit_gpt2": ("gpt2", ("<|endoftext|>",) * 3),
    "deit_gpt2": ("gpt2", ("<|endoftext|>",) * 3),
    "trocr": ("roberta", ("</s>", "</s>", "<pad>")),
    "blip": ("bert", ("[DEC]", "[SEP]", "[PAD]")),
}


def saved(family, folder):
    """Write a tiny peer as its users have it: weights, configs, tokenizer, preprocessing. Returns peer, tokenizer, processor."""
    kind, names = TOKENIZERS[family]
    inner = KINDS[kind]
    ids = tuple(inner.token_to_id(name) for name in names)
    peer = end_competes(build(family, 3, torch.float32, vocabulary=inner.get_vocab_size(), ids=ids), -1.5)
    # BLIP's own generate does not look at these.
    peer.generation_config.num_beams, peer.generation_config.max_length, peer.generation_config.min_length = 3, 12, 5
    peer.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)
    (folder / "tokenizer.json").write_text(inner.to_str())
    size = {"height": SIZE, "width": SIZE}
    processor = BlipImageProcessorPil(size=size) if family == "blip" else ViTImageProcessorPil(size=size)
    processor.save_pretrained(folder)
    return peer, tokenizer, processor


def photographs():
    dice = np.random.default_rng(0)
    for size in ((40, 30), (30, 40), (64, 64)):
        yield Image.fromarray(dice.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_converted_folder_gives_the_peers_captions_through_the_service(family, tmp_path):
    peer, tokenizer, processor = saved(family, tmp_path / "source")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "ours"), "--license", "MIT"]) == 0

    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    with TestClient(create_app({"converted": captioner}, Settings())) as client:
        for image in photographs():
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            told = {} if family != "blip" else {"max_new_tokens": 20}  # its default, told: else the library warns
            wanted = tokenizer.batch_decode(peer.generate(pixel_values=pixels, **told), skip_special_tokens=True)[0]
            answer = client.post("/v1/captions", content=png(image), headers={"content-type": "image/png"})
            assert answer.status_code == 200
            (caption,) = answer.json()["captions"]
            # Bytes that make no character are left out here, and shown as U+FFFD there.
            assert caption["text"] == wanted.replace("\N{REPLACEMENT CHARACTER}", "")
            for word in caption["words"]:
                assert word["map"]["rows"] == word["map"]["columns"] == 4
                assert abs(sum(np.ravel(word["map"]["values"])) - 1) < 1e-3
                assert caption["text"][word["start"] : word["end"]] == word["text"]
    card = load_checkpoint(tmp_path / "ours").card
    assert "license: MIT" in card
    assert "sha256" in card


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_caption_of_somebody_else_is_explained_too(family, tmp_path):
    saved(family, tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours")
    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    view = prepare(png(next(photographs())), captioner.image_config)
    (answer,) = captioner.explain([view], [["A brown dog, isn't it?"]])
    words = answer.captions[0].words
    assert [word.text for word in words][:3] == ["A", "brown", "dog"]
    assert all("A brown dog, isn't it?"[word.start : word.end] == word.text for word in words)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: cut(f / "model.safetensors"), "model.safetensors cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights; it needs one of model.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer; it needs tokenizer.json, vocab.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), r"has no preprocessor_config.json \(or processor_config.json\)"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is no JSON object"),
        (lambda f: edit(f, "config.json", lambda c: c.update(model_type="git")), "model_type is 'git'"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_embd=36)), "the source lacks 'enc_to_dec_proj.weight'"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_positions=32)), r"its config makes it \[32, 32\]"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_head=5)), "must be a multiple of its heads"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_layer=1)), "not known"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(size={"shortest_edge": 9})), "known is a height"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(resample=1)), "bilinear and bicubic are"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(rescale_factor=1 / 127.5)), "scales pixels in a way"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.pop("image_mean")), "KeyError: 'image_mean'"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(image_std=None)), "missing or of another kind"),
        (lambda f: edit(f, "config.json", lambda c: c["encoder"].pop("image_size")), "KeyError: 'image_size'"),
        (lambda f: edit(f, "config.json", lambda c: c.update(decoder=None)), "missing or of another kind"),
        (lambda f: edit(f, "generation_config.json", lambda c: c.update(max_length="a")), "missing or of another kind"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_embd="x")), "missing or of another kind"),
    ],
)  # fmt: skip
def test_a_broken_source_is_told_and_nothing_is_written(break_it, message, tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    break_it(tmp_path / "source")
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path / "source", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_of_another_kind_is_told_which(tmp_path, capsys):
    saved("blip", tmp_path / "source")
    with pytest.raises(CheckpointError, match="is of a blip of transformers; `python -m model convert"):
        Captioner.load(tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours", language="de")
    assert load_checkpoint(tmp_path / "ours").config.languages == ("de",)
    with pytest.raises(CheckpointError, match="is a checkpoint of this program already"):
        convert_source(tmp_path / "ours", tmp_path / "again")
    with pytest.raises(CheckpointError, match="is a file; name its folder"):
        convert_source(tmp_path / "source/model.safetensors", tmp_path / "again")


def test_what_is_not_taken_over_of_decoding_stands_in_the_card(tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "plain")
    assert "not taken over" not in load_checkpoint(tmp_path / "plain").card
    edit(tmp_path / "source", "generation_config.json", lambda c: c.update(num_beams=10, forced_bos_token_id=3, do_sample=True))
    convert_source(tmp_path / "source", tmp_path / "ours")
    card = load_checkpoint(tmp_path / "ours").card
    for name in ("num_beams 10 (8 at most)", "forced_bos_token_id 3", "do_sample True"):
        assert f"not taken over from its decoding: {name}" in card


def test_a_preprocessor_that_says_no_filter_means_its_familys(tmp_path):
    for family, wanted in (("vit_gpt2", "bilinear"), ("blip", "bicubic")):
        saved(family, tmp_path / family)
        edit(tmp_path / family, "preprocessor_config.json", lambda c: c.pop("resample"))
        convert_source(tmp_path / family, tmp_path / f"ours {family}")
        assert load_checkpoint(tmp_path / f"ours {family}").config.image.resample == wanted


def test_a_pickle_that_is_not_weights_is_not_run(tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    (tmp_path / "source/model.safetensors").unlink()
    torch.save({"x": print}, tmp_path / "source/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin cannot be read as weights"):
        convert_source(tmp_path / "source", tmp_path / "ours")


def edit(folder, name, change):
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])
