"""Sources as they lie on disks: BLIP's authors' .pth, vocabularies without tokenizer.json, files of older and newer libraries."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    PreTrainedTokenizerFast,
    TrOCRProcessor,
    ViTImageProcessorPil,
)

from model import Captioner, CheckpointError, load_checkpoint, prepare
from model.pretrained import convert_source
from model.pretrained.vocabulary import source_tokenizer
from tests.peers import end_competes, redrawn
from tests.test_convert import edit, photographs, png, saved
from tests.test_foreign_tokenizers import KINDS, MORE
from tests.test_pretrained import as_the_authors_spell

YAML = (
    "image_root: '/data/COCO/'\nvit: 'base'\nimage_size: 16\nmax_length: 14\nmin_length: 7\nnum_beams: 3\nprompt: 'a dog on '\n"
)


def write_vocab_txt(inner, path, without=()):
    pieces = sorted(inner.get_vocab().items(), key=lambda entry: entry[1])
    path.write_text("".join(f"{piece}\n" for piece, _ in pieces if piece not in without))


def of_the_authors(folder):
    """Write what BLIP's authors publish, with random weights; returns the peer that has the same."""
    inner = KINDS["bert"]
    start, end = inner.token_to_id("[DEC]"), inner.token_to_id("[SEP]")
    text = {
        "vocab_size": inner.get_vocab_size(), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 32, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
    }  # fmt: skip
    told = text | {"encoder_hidden_size": 128, "bos_token_id": start, "eos_token_id": 2, "sep_token_id": end}
    vision = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 192}
    vision |= {"image_size": 16, "patch_size": 4, "layer_norm_eps": 1e-6}
    peer = BlipForConditionalGeneration(BlipConfig(text_config=told, vision_config=vision)).eval()
    peer = end_competes(redrawn(peer, 18), -1.5).requires_grad_(False)
    folder.mkdir()
    torch.save({"model": as_the_authors_spell(peer.state_dict()), "epoch": 5}, folder / "model_caption.pth")
    (folder / "med_config.json").write_text(json.dumps(text | {"encoder_width": 128, "model_type": "bert"}))
    (folder / "caption_coco.yaml").write_text(YAML)
    write_vocab_txt(inner, folder / "vocab.txt", without=("[DEC]", "[ENC]"))
    return peer


def test_the_authors_pth_gives_the_peers_captions_behind_their_prompt(tmp_path):
    peer = of_the_authors(tmp_path / "blip")
    convert_source(tmp_path / "blip/model_caption.pth", tmp_path / "ours", license="BSD-3-Clause")
    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    assert captioner.config.encoder.layer_norm_eps == 1e-6
    generation = captioner.config.generation
    assert (generation.prompt, generation.num_beams) == ("a dog on", 3)
    # max_length and min_length of the yaml count the start token and the three of the prompt.
    assert (generation.max_new_tokens, generation.min_new_tokens) == (14 - 4, 7 - 4)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS["bert"], clean_up_tokenization_spaces=False)
    processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    prompt = [0, *tokenizer("a dog on ", add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids("[SEP]")]
    seen = set()
    for image in photographs():
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        told = {"max_length": 14, "min_length": 7, "num_beams": 3}
        ids = peer.generate(pixel_values=pixels, input_ids=torch.tensor([prompt]), **told)
        (wanted,) = tokenizer.batch_decode(ids, skip_special_tokens=True)
        (answer,) = captioner.caption([prepare(png(image), captioner.image_config)])
        assert answer.captions[0].text == wanted
        assert wanted.startswith("a dog on")
        assert all(word.map is not None and word.image_reliance is not None for word in answer.captions[0].words)
        seen.add(wanted)
    assert len(seen) == 3, "the pictures make no difference, and nothing was shown"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "med_config.json").unlink(), "beside model_caption.pth must lie med_config.json and caption_coco.yaml"),
        (lambda f: (f / "vocab.txt").unlink(), "has no tokenizer; it needs tokenizer.json"),
        (lambda f: (f / "caption_coco.yaml").write_text("vit: base"), "the caption yaml cannot be used"),
        (lambda f: torch.save({"model": {"x": torch.ones(1)}}, f / "model_caption.pth"), "it is no BLIP of its authors"),
        (lambda f: torch.save({"model": [1]}, f / "model_caption.pth"), "holds something else than named tensors"),
        (lambda f: torch.save({"x": print}, f / "model_caption.pth"), "cannot be read as weights"),
        (lambda f: edit(f, "med_config.json", lambda c: c.update(hidden_size=48)), "do not belong together"),
    ],
)  # fmt: skip
def test_what_is_missing_beside_a_pth_is_told(change, message, tmp_path):
    of_the_authors(tmp_path / "blip")
    change(tmp_path / "blip")
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path / "blip/model_caption.pth", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_blips_own_tokens_are_added_where_its_files_hold_berts_alone(tmp_path):
    saved("blip", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "whole")
    (tmp_path / "source/tokenizer.json").unlink()
    write_vocab_txt(KINDS["bert"], tmp_path / "source/vocab.txt", without=("[DEC]", "[ENC]"))
    convert_source(tmp_path / "source", tmp_path / "added")
    one, other = (load_checkpoint(tmp_path / name) for name in ("whole", "added"))
    assert other.tokenizer.id_of("[DEC]") == one.tokenizer.id_of("[DEC]") == other.config.decoder.bos_token_id
    for text in (text for text in MORE if "'" not in text):  # the trained one has pieces of its own for these
        assert one.tokenizer.decode(one.tokenizer.encode(text)) == other.tokenizer.decode(other.tokenizer.encode(text))


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_a_vocabulary_and_its_merges_are_the_tokenizer(kind, tmp_path):
    KINDS[kind].model.save(str(tmp_path))
    specials = [token.content for token in KINDS[kind].get_added_tokens_decoder().values()]
    # As older libraries wrote them: each role with its token, or with an object around it.
    roles = {f"r{index}_token": name if index % 2 else {"content": name} for index, name in enumerate(specials)}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    found = source_tokenizer(tmp_path)
    assert found.special_ids == {KINDS[kind].token_to_id(name) for name in specials}
    for text in MORE:
        assert found.encode(text) == KINDS[kind].encode(text, add_special_tokens=False).ids


def test_the_one_file_of_a_newer_processor_is_read(tmp_path):
    saved("trocr", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "old")
    (tmp_path / "source/preprocessor_config.json").unlink()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS["roberta"])
    TrOCRProcessor(ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(tmp_path / "source")
    assert not (tmp_path / "source/preprocessor_config.json").exists()
    convert_source(tmp_path / "source", tmp_path / "new")
    assert load_checkpoint(tmp_path / "new").config.image == load_checkpoint(tmp_path / "old").config.image


def test_a_number_of_heads_that_no_published_network_has_is_refused(tmp_path):
    """A changed number of heads that divides the width changes no tensor: only the published widths give it away."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    vision = ViTConfig(
        hidden_size=192, num_hidden_layers=1, num_attention_heads=3, intermediate_size=64, image_size=16, patch_size=4
    )
    shape = {"vocab_size": KINDS["gpt2"].get_vocab_size(), "n_positions": 32, "n_embd": 192, "n_layer": 1, "n_head": 3}
    text = GPT2Config(**shape, add_cross_attention=True, is_decoder=True)
    peer = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=vision.to_dict(), decoder=text.to_dict()))
    told = peer.generation_config
    told.decoder_start_token_id = told.eos_token_id = told.pad_token_id = KINDS["gpt2"].token_to_id("<|endoftext|>")
    source = tmp_path / "source"
    peer.save_pretrained(source)
    (source / "tokenizer.json").write_text(KINDS["gpt2"].to_str())
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(source)
    convert_source(source, tmp_path / "right")
    edit(source, "config.json", lambda config: config["decoder"].update(n_head=6))
    with pytest.raises(CheckpointError, match="the decoder has 6 heads for a width of 192; published ones have 3"):
        convert_source(source, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    convert_source(source, tmp_path / "meant", unusual_heads=True)
    assert load_checkpoint(tmp_path / "meant").config.decoder.num_heads == 6
