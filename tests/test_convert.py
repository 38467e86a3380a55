"""Conversion of a folder of transformers: the captions equal the peer's and have maps; an error writes nothing."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tokenizers
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

TOKENIZERS = {  # tokenizer of each family, and its start, end and pad tokens
    "vit_gpt2": ("gpt2", ("<|endoftext|>",) * 3),
    "deit_gpt2": ("gpt2", ("<|endoftext|>",) * 3),
    "trocr": ("roberta", ("</s>", "</s>", "<pad>")),
    "blip": ("bert", ("[DEC]", "[SEP]", "[PAD]")),
    "beit_bert": ("bert", ("[CLS]", "[SEP]", "[PAD]")),
    "swin_roberta": ("roberta", ("<s>", "</s>", "<pad>")),
    "swinv2_xlm-roberta": ("xlm_roberta", ("<s>", "</s>", "<pad>")),
    "dinov2_mbart": ("xlm_roberta", ("<s>", "</s>", "<pad>")),
}


def saved(family, folder):
    """Write a tiny peer as it is published: weights, configs, tokenizer, preprocessing. Returns peer, tokenizer, processor."""
    kind, names = TOKENIZERS[family]
    inner = KINDS[kind]
    inner = tokenizers.Tokenizer.from_str(inner.to_str())
    ids = tuple(inner.token_to_id(name) for name in names)
    peer = end_competes(build(family, 3, torch.float32, vocab_size=inner.get_vocab_size(), ids=ids), -1.5)
    # BLIP's own generate ignores these.
    peer.generation_config.num_beams, peer.generation_config.max_length, peer.generation_config.min_length = 3, 12, 5
    peer.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)
    (folder / "tokenizer.json").write_text(inner.to_str())
    size = {"height": SIZE, "width": SIZE}
    processor = BlipImageProcessorPil(size=size) if family == "blip" else ViTImageProcessorPil(size=size)
    processor.save_pretrained(folder)
    return peer, tokenizer, processor


def random_images():
    rng = np.random.default_rng(0)
    for size in ((40, 30), (30, 40), (64, 64)):
        yield Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


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
        for image in random_images():
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            options = {} if family != "blip" else {"max_new_tokens": 20}  # its default, set so that the library does not warn
            expected = tokenizer.batch_decode(peer.generate(pixel_values=pixels, **options), skip_special_tokens=True)[0]
            response = client.post("/v1/captions", content=png(image), headers={"content-type": "image/png"})
            assert response.status_code == 200
            (caption,) = response.json()["captions"]
            # Bytes that make no character are omitted here; the library shows them as U+FFFD.
            assert caption["text"] == expected.replace("\N{REPLACEMENT CHARACTER}", "")
            for word in caption["words"]:
                assert word["map"]["rows"] == word["map"]["columns"] == 4
                assert abs(sum(np.ravel(word["map"]["values"])) - 1) < 1e-3
                assert caption["text"][word["start"] : word["end"]] == word["text"]
    card = load_checkpoint(tmp_path / "ours").card
    assert "license: MIT" in card
    assert "sha256" in card


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_caption_that_a_person_wrote_is_explained(family, tmp_path):
    saved(family, tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours")
    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    view = prepare(png(next(random_images())), captioner.image_config)
    text = "a brown dog, isn't it?" if TOKENIZERS[family][0] == "xlm_roberta" else "A brown dog, isn't it?"  # it has no A
    (result,) = captioner.explain([view], [[text]])
    words = result.captions[0].words
    assert [word.text for word in words][:3] == text[:11].split()
    assert all(text[word.start : word.end] == word.text for word in words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: truncate(f / "model.safetensors"), "model.safetensors cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights; it needs one of model.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer; it needs tokenizer.json, vocab.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), r"has no preprocessor_config.json \(or processor_config.json\)"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda f: edit(f, "config.json", lambda c: c.update(model_type="git")), "model_type is 'git'"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_embd=36)), "the source lacks 'enc_to_dec_proj.weight'"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_positions=32)), r"its config requires \[32, 32\]"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_head=5)), "must be a multiple of num_heads"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_layer=1)), "not known"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(size={"shortest_edge": 9})), "be a height and a width"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(resample=1)), "supported are bilinear and bicubic"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(rescale_factor=1 / 127.5)), "supported is 1/255"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.pop("image_mean")), "config.json lacks 'image_mean'"),
        (lambda f: edit(f, "preprocessor_config.json", lambda c: c.update(image_std=[1])), "be a list of 3 numbers"),
        (lambda f: edit(f, "config.json", lambda c: c["encoder"].pop("image_size")), "config.json lacks 'encoder.image_size'"),
        (lambda f: edit(f, "config.json", lambda c: c.update(decoder=None)), "config.json lacks 'decoder'"),
        (lambda f: edit(f, "config.json", lambda c: c["decoder"].update(n_embd="x")), "'decoder.n_embd'; it must be an integer"),
    ],
)  # fmt: skip
def test_a_broken_source_is_an_error_and_writes_nothing(change, message, tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    change(tmp_path / "source")
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path / "source", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_error_says_of_which_kind_a_folder_is(tmp_path, capsys):
    saved("blip", tmp_path / "source")
    with pytest.raises(CheckpointError, match="is a blip of transformers; `python -m model convert"):
        Captioner.load(tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours", language="de")
    assert load_checkpoint(tmp_path / "ours").config.languages == ("de",)
    with pytest.raises(CheckpointError, match="is a checkpoint of this program already"):
        convert_source(tmp_path / "ours", tmp_path / "again")
    with pytest.raises(CheckpointError, match="is a file; name its folder"):
        convert_source(tmp_path / "source/model.safetensors", tmp_path / "again")


def test_the_card_lists_the_generation_settings_that_are_not_taken_over(tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "plain")
    assert "Not taken over" not in load_checkpoint(tmp_path / "plain").card
    edit(tmp_path / "source", "generation_config.json", lambda c: c.update(num_beams=10, bad_words_ids=[[3]], do_sample=True))
    convert_source(tmp_path / "source", tmp_path / "ours")
    card = load_checkpoint(tmp_path / "ours").card
    for row in ("num_beams | `10` | num_beams is 8", "bad_words_ids | `[[3]]` | it has no equivalent", "do_sample | `True` |"):
        assert f"\n| {row}" in card


def test_a_preprocessor_without_a_filter_has_the_default_of_its_family(tmp_path):
    for family, resample in (("vit_gpt2", "bilinear"), ("blip", "bicubic")):
        saved(family, tmp_path / family)
        edit(tmp_path / family, "preprocessor_config.json", lambda c: c.pop("resample"))
        convert_source(tmp_path / family, tmp_path / f"ours {family}")
        assert load_checkpoint(tmp_path / f"ours {family}").config.image.resample == resample


def test_a_pickle_that_is_not_weights_is_not_executed(tmp_path):
    saved("vit_gpt2", tmp_path / "source")
    (tmp_path / "source/model.safetensors").unlink()
    torch.save({"x": print}, tmp_path / "source/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin cannot be read as weights"):
        convert_source(tmp_path / "source", tmp_path / "ours")


def edit(folder, name, change):
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])
