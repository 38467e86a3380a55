"""Sources as they are published: the .pth of BLIP's authors, vocabulary files, files of older and newer libraries."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    GPT2Config,
    PreTrainedTokenizerFast,
    TrOCRProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

from benchmarks import randomize_weights
from model import Captioner, CheckpointError, load_checkpoint, prepare
from model.pretrained import convert_source
from model.pretrained.vocabulary import source_tokenizer
from tests.peers import end_competes
from tests.test_convert import edit, png, random_images, saved
from tests.test_foreign_tokenizers import KINDS, MORE
from tests.test_pretrained import with_authors_names

YAML = (
    "image_root: '/data/COCO/'\nvit: 'base'\nimage_size: 16\nmax_length: 14\nmin_length: 7\nnum_beams: 3\nprompt: 'a dog on '\n"
)


def write_vocab_txt(inner, path, omitted=()):
    pieces = sorted(inner.get_vocab().items(), key=lambda entry: entry[1])
    path.write_text("".join(f"{piece}\n" for piece, _ in pieces if piece not in omitted))


def save_authors_blip(folder):
    """Write the files that BLIP's authors publish, with random weights; returns the peer with the same weights."""
    inner = KINDS["bert"]
    start, end = inner.token_to_id("[DEC]"), inner.token_to_id("[SEP]")
    text = {
        "vocab_size": inner.get_vocab_size(), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 32, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
    }  # fmt: skip
    text_config = text | {"encoder_hidden_size": 128, "bos_token_id": start, "eos_token_id": 2, "sep_token_id": end}
    vision = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 192}
    vision |= {"image_size": 16, "patch_size": 4, "layer_norm_eps": 1e-6}
    peer = BlipForConditionalGeneration(BlipConfig(text_config=text_config, vision_config=vision)).eval()
    peer = end_competes(randomize_weights(peer, 18), -1.5).requires_grad_(False)
    folder.mkdir()
    torch.save({"model": with_authors_names(peer.state_dict()), "epoch": 5}, folder / "model_caption.pth")
    (folder / "med_config.json").write_text(json.dumps(text | {"encoder_width": 128, "model_type": "bert"}))
    (folder / "caption_coco.yaml").write_text(YAML)
    write_vocab_txt(inner, folder / "vocab.txt", omitted=("[DEC]", "[ENC]"))
    return peer


def test_the_authors_pth_gives_the_peers_captions_after_their_prompt(tmp_path):
    peer = save_authors_blip(tmp_path / "blip")
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
    captions = set()
    for image in random_images():
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        options = {"max_length": 14, "min_length": 7, "num_beams": 3}
        ids = peer.generate(pixel_values=pixels, input_ids=torch.tensor([prompt]), **options)
        (expected,) = tokenizer.batch_decode(ids, skip_special_tokens=True)
        (result,) = captioner.caption([prepare(png(image), captioner.image_config)])
        assert result.captions[0].text == expected
        assert expected.startswith("a dog on")
        assert all(word.map is not None and word.image_reliance is not None for word in result.captions[0].words)
        captions.add(expected)
    assert len(captions) == 3, "every image has its own caption; else the test shows nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "med_config.json").unlink(), "must contain med_config.json and caption_coco.yaml"),
        (lambda f: (f / "vocab.txt").unlink(), "has no tokenizer; it needs tokenizer.json"),
        (lambda f: (f / "caption_coco.yaml").write_text("vit: base"), "the caption yaml cannot be used"),
        (lambda f: torch.save({"model": {"x": torch.ones(1)}}, f / "model_caption.pth"), "is not a BLIP of its authors"),
        (lambda f: torch.save({"model": [1]}, f / "model_caption.pth"), "does not contain named tensors"),
        (lambda f: torch.save({"x": print}, f / "model_caption.pth"), "cannot be read as weights"),
        (lambda f: edit(f, "med_config.json", lambda c: c.update(hidden_size=48)), "its config requires .* they do not match"),
    ],
)  # fmt: skip
def test_a_missing_or_broken_file_next_to_a_pth_is_an_error_that_names_it(change, message, tmp_path):
    save_authors_blip(tmp_path / "blip")
    change(tmp_path / "blip")
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path / "blip/model_caption.pth", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_blips_own_tokens_are_added_to_a_vocabulary_of_bert(tmp_path):
    saved("blip", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "complete")
    (tmp_path / "source/tokenizer.json").unlink()
    write_vocab_txt(KINDS["bert"], tmp_path / "source/vocab.txt", omitted=("[DEC]", "[ENC]"))
    convert_source(tmp_path / "source", tmp_path / "added")
    one, other = (load_checkpoint(tmp_path / name) for name in ("complete", "added"))
    assert other.tokenizer.id_of("[DEC]") == one.tokenizer.id_of("[DEC]") == other.config.decoder.bos_token_id
    for text in (text for text in MORE if "'" not in text):  # the trained tokenizer has its own pieces for these
        assert one.tokenizer.decode(one.tokenizer.encode(text)) == other.tokenizer.decode(other.tokenizer.encode(text))


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_a_vocabulary_and_its_merges_give_the_peers_ids(kind, tmp_path):
    KINDS[kind].model.save(str(tmp_path))
    specials = [token.content for token in KINDS[kind].get_added_tokens_decoder().values()]
    # As older libraries wrote them: each role with its token, or with an object around it.
    roles = {f"r{index}_token": name if index % 2 else {"content": name} for index, name in enumerate(specials)}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    tokenizer = source_tokenizer(tmp_path)
    assert tokenizer.special_ids == {KINDS[kind].token_to_id(name) for name in specials}
    for text in MORE:
        assert tokenizer.encode(text) == KINDS[kind].encode(text, add_special_tokens=False).ids


def test_the_single_file_of_a_newer_processor_is_read(tmp_path):
    saved("trocr", tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "old")
    (tmp_path / "source/preprocessor_config.json").unlink()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS["roberta"])
    TrOCRProcessor(ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(tmp_path / "source")
    assert not (tmp_path / "source/preprocessor_config.json").exists()
    convert_source(tmp_path / "source", tmp_path / "new")
    assert load_checkpoint(tmp_path / "new").config.image == load_checkpoint(tmp_path / "old").config.image


def test_a_number_of_heads_that_no_published_network_has_is_refused(tmp_path):
    """A changed number of heads that divides the hidden size changes no tensor; only the published sizes reveal it."""
    vision = ViTConfig(
        hidden_size=192, num_hidden_layers=1, num_attention_heads=3, intermediate_size=64, image_size=16, patch_size=4
    )
    shape = {"vocab_size": KINDS["gpt2"].get_vocab_size(), "n_positions": 32, "n_embd": 192, "n_layer": 1, "n_head": 3}
    text = GPT2Config(**shape, add_cross_attention=True, is_decoder=True)
    peer = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=vision.to_dict(), decoder=text.to_dict()))
    ids = peer.generation_config
    ids.decoder_start_token_id = ids.eos_token_id = ids.pad_token_id = KINDS["gpt2"].token_to_id("<|endoftext|>")
    source = tmp_path / "source"
    peer.save_pretrained(source)
    (source / "tokenizer.json").write_text(KINDS["gpt2"].to_str())
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(source)
    convert_source(source, tmp_path / "right")
    edit(source, "config.json", lambda config: config["decoder"].update(n_head=6))
    with pytest.raises(CheckpointError, match="the decoder has 6 heads for a hidden size of 192; published ones have 3"):
        convert_source(source, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    convert_source(source, tmp_path / "unusual", unusual_heads=True)
    assert load_checkpoint(tmp_path / "unusual").config.decoder.num_heads == 6
