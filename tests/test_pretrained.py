"""Converted families equal transformers' implementation, in float64; and the comparison detects a mistake in one field.

Shapes: R rows, T tokens, S image tokens, H heads.
"""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from benchmarks import PEER_FAMILIES, random_peer
from model import CaptionNetwork, CheckpointError, ImageConfig, ModelConfig
from model.pretrained import convert_network, source_image
from model.pretrained.florence import TASKS
from tests.peers import (
    DECODERS,
    ENCODERS,
    FAMILIES,
    PROMPT,
    SIZE,
    build,
    cross_attentions_of,
    features_of,
    logits_of,
)

EQUAL = 1e-12  # in float64, relative to the standard deviation of the peer's values; measured: about 1e-14
EQUAL32 = 2e-5


def converted(peer, dtype=torch.float64, image=None, **changes):
    """Return our network of a peer's config and tensors; `changes` of its fields are deliberate mistakes."""
    config = peer.config.to_dict()
    image = image or (ImageConfig(height=SIZE, width=SIZE) if peer.config.model_type == "florence2" else source_image(config))
    encoder, decoder, prompt, weights = convert_network(config, peer.generation_config.to_dict(), dict(peer.state_dict()), image)
    for name, value in changes.items():
        if name.startswith("prompt_"):
            prompt = dataclasses.replace(prompt, **{name.removeprefix("prompt_"): value})
        elif name.startswith("encoder_"):
            encoder = dataclasses.replace(encoder, **{name.removeprefix("encoder_"): value})
        else:
            decoder = dataclasses.replace(decoder, **{name: value})
    tasks = TASKS if prompt else ()
    prompt = prompt and dataclasses.replace(prompt, default_ids=PROMPT, num_locations=1)
    network = (
        CaptionNetwork(ModelConfig(image=image, encoder=encoder, decoder=decoder, prompt_encoder=prompt, tasks=tasks))
        .to(dtype)
        .eval()
    )
    missing, unknown = network.load_state_dict(weights, strict=False)
    assert (missing, unknown) == (["no_image"], [])
    return network.requires_grad_(False)


def inputs(dtype=torch.float64, rows=3, length=9, size=(SIZE, SIZE)):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(rows, 3, *size, generator=generator, dtype=torch.float64).to(dtype)
    return pixels, torch.randint(8, 50, (rows, length), generator=generator)


def ours(network, pixels, tokens, *, weights=False):
    features = network.encode(pixels)
    logits, attention, _ = network.decode(tokens, network.start(features), weights=weights)
    return features.tokens, logits, attention


def difference(one, other):
    """Return the largest difference in standard deviations of the second."""
    return float((one - other).abs().max() / other.std())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_patch_embeddings_and_logits_equal_the_peers(family, rows):
    peer = build(family)
    pixels, tokens = inputs(rows=rows)
    features, logits, _ = ours(converted(peer), pixels, tokens)
    assert difference(features, features_of(peer, pixels)) < EQUAL
    assert difference(logits, logits_of(peer, pixels, tokens)) < EQUAL


ANY_SIZE = [family for family in FAMILIES if "swin" not in family and "beit" not in family]  # of a multiple of the patch size
SIZES = [
    *[(family, size) for family in ANY_SIZE for size in ((32, 32), (24, 16), (8, 8))],
    *[(family, (24, 12)) for family in ANY_SIZE if family != "florence2"],
    *[(family, size) for family in ("swin_roberta", "donut-swin_mbart") for size in ((32, 32), (24, 40))],
]


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_images_of_another_size_give_the_peers_logits(family, size):
    peer = build(family)
    pixels, tokens = inputs(size=size)
    features, logits, _ = ours(converted(peer, image=ImageConfig(height=size[0], width=size[1])), pixels, tokens)
    assert difference(features, features_of(peer, pixels)) < EQUAL
    assert difference(logits, logits_of(peer, pixels, tokens)) < EQUAL


@pytest.mark.parametrize(("family", "size"), [("beit_bert", 24), ("swinv2_xlm-roberta", 24), ("swin_roberta", 8)])
def test_an_encoder_whose_windows_or_biases_would_differ_is_refused(family, size):
    with pytest.raises(CheckpointError, match="was trained with images of 16 x 16, its preprocessing gives"):
        converted(build(family), image=ImageConfig(height=size, width=size))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", [*ENCODERS, "beit-shared", "dinov2-gated", "donut-swin"])
def test_every_encoder_with_every_decoder_gives_the_peers_logits(encoder, decoder):
    peer = build(f"{encoder}_{decoder}", 1)
    pixels, tokens = inputs(rows=2)
    features, logits, _ = ours(converted(peer), pixels, tokens)
    assert difference(features, features_of(peer, pixels)) < EQUAL
    assert difference(logits, logits_of(peer, pixels, tokens)) < EQUAL


@pytest.mark.parametrize("family", ["vit_gpt2", "deit_gpt2", "vit_gpt2_projected", "trocr", "beit_bert", "dinov2_mbart"])
def test_attention_of_the_scoring_pass_equals_that_of_the_peers_beams(family):
    """Compare the weights of finished captions, from one pass, with those of every step, gathered along the beams."""
    peer = build(family, 5, eager_decoder=True)
    pixels, _ = inputs(rows=2)
    output = peer.generate(
        pixel_values=pixels, num_beams=3, num_return_sequences=2, max_new_tokens=6, do_sample=False, output_attentions=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    network = converted(peer)
    images = (0, 0, 1, 1)
    _, attention, _ = network.decode(output.sequences[:, :-1], network.start(network.encode(pixels), images), weights=True)
    compared = 0
    for row, beams in enumerate(output.beam_indices.tolist()):
        for step, beam in enumerate(beams):
            if beam >= 0:
                for layer, weights in enumerate(attention):
                    assert (weights[row, :, step] - output.cross_attentions[step][layer][beam, :, 0]).abs().max() < EQUAL
                    compared += 1
    assert compared >= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_peers_in_float32_too(family):
    peer = build(family, dtype=torch.float32)
    pixels, tokens = inputs(torch.float32)
    _, logits, _ = ours(converted(peer, torch.float32), pixels, tokens)
    assert difference(logits, logits_of(peer, pixels, tokens)) < EQUAL32


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_with_a_cache_equals_the_peer_without_one(family):
    peer = build(family, 2)
    pixels, tokens = inputs(length=6)
    network = converted(peer)
    state, steps = network.start(network.encode(pixels)), []
    for column in tokens.split(1, dim=1):
        logits, _, state = network.decode(column, state)
        steps.append(logits)
    assert difference(torch.cat(steps, dim=1), logits_of(peer, pixels, tokens)) < EQUAL


@pytest.mark.parametrize("family", FAMILIES)
def test_cross_attention_equals_the_peers(family):
    peer = build(family, eager_decoder=True)
    pixels, tokens = inputs()
    _, _, attention = ours(converted(peer), pixels, tokens, weights=True)
    theirs = cross_attentions_of(peer, pixels, tokens)
    assert len(attention) == len(theirs) == 2
    for one, other in zip(attention, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < EQUAL


@pytest.mark.parametrize("family", ["vit_gpt2", "deit_gpt2", "trocr"])
def test_both_sets_of_encoder_names_give_the_same_network(family, tmp_path):
    """Files that the library saves have the old names, its networks in memory the new ones."""
    from safetensors.torch import load_file

    peer = build(family)
    peer.save_pretrained(tmp_path)
    saved_tensors = load_file(tmp_path / "model.safetensors")
    assert any(".attention.attention.query" in name for name in saved_tensors)
    assert not any(".attention.attention.query" in name for name in peer.state_dict())
    configs = peer.config.to_dict(), peer.generation_config.to_dict()
    one, other = convert_network(*configs, dict(peer.state_dict())), convert_network(*configs, saved_tensors)
    assert one[:2] == other[:2]
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_the_authors_names_of_blip_are_read():
    peer = build("blip")
    pixels, tokens = inputs()
    tensors = with_authors_names(peer.state_dict())
    tensors |= {"text_encoder.x": torch.zeros(1), "itm_head.weight": torch.zeros(1), "image_queue": torch.zeros(1)}
    config, generation = peer.config.to_dict(), peer.generation_config.to_dict()
    encoder, decoder, _, weights = convert_network(config, generation, tensors)
    network = CaptionNetwork(ModelConfig(image=source_image(config), encoder=encoder, decoder=decoder)).double().eval()
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        assert difference(ours(network, pixels, tokens)[1], logits_of(peer, pixels, tokens)) < EQUAL


AUTHORS = {
    r"^vision_model\.embeddings\.class_embedding": "visual_encoder.cls_token",
    r"^vision_model\.embeddings\.position_embedding": "visual_encoder.pos_embed",
    r"^vision_model\.embeddings\.patch_embedding": "visual_encoder.patch_embed.proj",
    r"^vision_model\.post_layernorm": "visual_encoder.norm",
    r"^vision_model\.encoder\.layers": "visual_encoder.blocks",
    r"\.layer_norm(\d)": r".norm\1",
    r"\.self_attn\.projection": ".attn.proj",
    r"\.self_attn\.qkv": ".attn.qkv",
}


def with_authors_names(tensors):
    """Return BLIP's tensors under the names of its authors' .pth."""
    renamed = {}
    for name, value in tensors.items():
        if name.startswith("vision_model."):
            for theirs, timms in AUTHORS.items():
                name = re.sub(theirs, timms, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.update(model_type="git"), "model_type is 'git'; supported are"),
        (lambda c, t: c["decoder"].update(model_type="bart"), "the decoder is 'bart'; supported are gpt2, bert, roberta, xlm-"),
        (lambda c, t: c["encoder"].update(model_type="clip"), "the encoder is 'clip'; supported are vit, deit, beit"),
        (lambda c, t: c["encoder"].update(hidden_act="relu"), "the encoder's activation is 'relu'"),
        (lambda c, t: c["decoder"].update(activation_function="silu"), "the decoder's activation is 'silu'"),
        (lambda c, t: c["decoder"].update(scale_attn_by_inverse_layer_idx=True), "scales its attention by layer"),
        (lambda c, t: c["decoder"].pop("n_embd"), "config.json lacks 'decoder.n_embd'; add it: no field is guessed"),
        (lambda c, t: c["decoder"].update(n_embd=[1]), r"has \[1\] as 'decoder.n_embd'; it must be an integer"),
        (lambda c, t: t.pop("decoder.transformer.h.1.ln_2.weight"), r"lacks 'decoder.transformer.h.1.ln_2.weight'"),
        (lambda c, t: t.update({"decoder.extra.weight": torch.zeros(1)}), r"1 tensors that are not known \(decoder.extra"),
        (lambda c, t: c["decoder"].update(n_layer=1), r"tensors that are not known \(decoder.transformer.h.1"),
    ],
)  # fmt: skip
def test_a_source_of_another_family_is_an_error_that_names_the_field_or_tensor(change, message):
    peer = build("vit_gpt2")
    config, tensors = peer.config.to_dict(), dict(peer.state_dict())
    change(config, tensors)
    with pytest.raises(CheckpointError, match=message):
        convert_network(config, peer.generation_config.to_dict(), tensors)


@pytest.mark.parametrize("family", ["vit_gpt2", "blip"])
def test_a_head_that_is_not_tied_to_the_embedding_is_converted(family):
    peer = build(family)
    head = peer.text_decoder.cls.predictions.decoder if family == "blip" else peer.decoder.lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight), requires_grad=False)
    (peer.config.text_config if family == "blip" else peer.config.decoder).tie_word_embeddings = False
    pixels, tokens = inputs()
    assert difference(ours(converted(peer), pixels, tokens)[1], logits_of(peer, pixels, tokens)) < EQUAL


def test_special_ids_equal_those_of_generate():
    _, decoder, *_ = convert_network(*_source_of(build("trocr")))
    assert (decoder.bos_token_id, decoder.eos_token_id, decoder.pad_token_id) == (2, 2, 1)
    _, decoder, *_ = convert_network(*_source_of(build("blip")))
    assert (decoder.bos_token_id, decoder.eos_token_id, decoder.pad_token_id) == (59, 7, 0), (
        "it ends with [SEP], not with eos_token_id"
    )


def _source_of(peer):
    return peer.config.to_dict(), peer.generation_config.to_dict(), dict(peer.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, EQUAL), (torch.float32, EQUAL32)])
@pytest.mark.parametrize("family", PEER_FAMILIES)
def test_the_published_sizes_give_the_peers_logits(family, dtype, bound):
    peer = random_peer(family, dtype)
    network = converted(peer, dtype, ImageConfig(height=768, width=768) if "florence" in family else None)
    size = (network.config.image.height, network.config.image.width)
    pixels, _ = inputs(dtype, rows=1, size=size)
    last = min(30_000, network.config.decoder.vocab_size)
    tokens = torch.randint(1000, last, (1, 12), generator=torch.Generator().manual_seed(0))
    features, logits, _ = ours(network, pixels, tokens)
    logits_difference = difference(logits, logits_of(peer, pixels, tokens))
    if "florence" not in family or dtype == torch.float64:  # in float32 the peer's own are 4e-5 from its float64 ones
        assert difference(features, features_of(peer, pixels)) < bound
    assert logits_difference < bound
