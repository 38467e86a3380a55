"""Every family through Captioner and HTTP: maps, probabilities, reliance, explanations, streams and decoding options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from transformers import DeiTImageProcessorPil

from model import Captioner, Word, load_checkpoint, prepare
from model.pretrained import convert_source
from service import Settings, create_app
from tests.peers import cross_attentions_of, logits_of
from tests.test_convert import png, random_images, saved

FAMILIES = ("vit_gpt2", "deit_gpt2", "blip", "trocr", "beit_bert", "swin_roberta", "swinv2_xlm-roberta", "dinov2_mbart")
TEXT = "a dog runs on the grass with a ball"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A converted captioner and its peer, both in float32, the peer's processor, and the converted folder."""
    folder = tmp_path_factory.mktemp(request.param)
    peer, _, processor = saved(request.param, folder / "source")
    if request.param == "deit_gpt2":  # its processor resizes, then crops the center
        processor = DeiTImageProcessorPil(
            size={"height": 20, "width": 20}, crop_size={"height": 16, "width": 16}, do_center_crop=True
        )
        processor.save_pretrained(folder / "source")
    convert_source(folder / "source", folder / "ours")
    return Captioner.load(folder / "ours", dtype="float32"), peer, processor, folder / "ours"


@pytest.fixture(scope="module")
def client(family):
    with TestClient(create_app({"converted": family[0]}, Settings())) as client:
        yield client


@pytest.fixture(scope="module")
def views(family):
    return [prepare(png(image), family[0].image_config) for image in random_images()]


def test_probabilities_and_maps_equal_the_peers(family, views):
    captioner, peer, processor, folder = family
    if hasattr(peer, "decoder") and not hasattr(peer.decoder, "output_projection"):  # TrOCR has only eager code
        peer.decoder.set_attn_implementation("eager")
    decoder = captioner.config.decoder
    tokenizer = load_checkpoint(folder).tokenizer
    ids = tokenizer.encode(TEXT)
    for image, view in zip(random_images(), views, strict=True):
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        caption = captioner.explain([view], [[TEXT]])[0].captions[0]
        with torch.no_grad():
            tokens = torch.tensor([[decoder.bos_token_id, *ids, decoder.eos_token_id]])
            log_probs = logits_of(peer, pixels, tokens[:, :-1]).log_softmax(-1)[0]
            attention = torch.cat([layer[0] for layer in cross_attentions_of(peer, pixels, tokens[:, :-1])])
        theirs = log_probs[range(len(ids) + 1), tokens[0, 1:]]
        assert caption.log_probability == pytest.approx(float(theirs.sum()), abs=1e-3)
        rows = attention.mean(0)[:, captioner.config.encoder.num_prefix_tokens :]  # (T, P)
        for word, span in zip(caption.words, tokenizer.words(ids), strict=True):
            assert word.log_probability == pytest.approx(float(theirs[list(span.tokens)].sum()), abs=1e-3)
            expected = rows[list(span.tokens)].mean(0)
            np.testing.assert_allclose(np.ravel(word.map.values), (expected / expected.sum()).numpy(), atol=1e-5)
            assert word.map.image_mass == pytest.approx(float(expected.sum()), abs=1e-5)


def test_a_batch_a_stream_and_a_single_image_agree(family, views):
    captioner = family[0]
    together = captioner.caption(views)
    for view, result in zip(views, together, strict=True):
        (alone,) = captioner.caption([view])
        assert alone.captions[0].text == result.captions[0].text
        assert alone.captions[0].log_probability == pytest.approx(result.captions[0].log_probability, abs=1e-4)
        *words, last = captioner.stream(view)
        assert all(isinstance(word, Word) for word in words)
        assert [word.text for word in words] == [word.text for word in result.captions[0].words]
        assert last.captions[0].text == result.captions[0].text
        explained = captioner.explain([view], [[alone.captions[0].text]])
        assert explained[0].captions[0].text == alone.captions[0].text


def test_reliance_is_zero_only_without_cross_attention(family, views):
    captioner = Captioner.load(family[3], dtype="float32")  # of its own: it will be changed
    (result,) = captioner.explain(views[:1], [[TEXT]])
    values = [word.image_reliance for word in result.captions[0].words]
    assert any(abs(value) > 1e-4 for value in values), "the image makes a difference"
    for layer in captioner.runtime.decoder.layers:  # without cross-attention
        torch.nn.init.zeros_(layer.cross_attention.out.weight)
    (without_image,) = captioner.explain(views[:1], [[TEXT]])
    assert all(word.image_reliance == pytest.approx(0, abs=1e-5) for word in without_image.captions[0].words)


OPTIONS = [
    {"strategy": "greedy", "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 4, "max_new_tokens": 9},
    {
        "strategy": "beam",
        "num_beams": 4,
        "num_return_sequences": 4,
        "length_penalty": 0.0,
        "early_stopping": True,
        "max_new_tokens": 7,
    },
    {"strategy": "beam", "num_beams": 2, "early_stopping": "never", "length_penalty": 2.0, "min_words": 1, "max_words": 4},
    {
        "strategy": "sample",
        "num_return_sequences": 3,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.9,
        "seed": 5,
        "max_new_tokens": 8,
    },
    {"prompt": "a dog", "max_words": 6, "map_size": "12x8", "reliance": False},
    {"maps": "none"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_works_over_http(client, options):
    for image in random_images():
        response = client.post("/v1/captions", content=png(image), params=options)
        assert response.status_code == 200, response.text
        body = response.json()
        assert len(body["captions"]) == options.get("num_return_sequences", 1)
        covers = body["grid"]["covers"]
        for caption in body["captions"]:
            assert caption["text"].startswith(options.get("prompt", ""))
            for word in caption["words"]:
                assert caption["text"][word["start"] : word["end"]] == word["text"]
                assert math.exp(word["log_probability"]) == pytest.approx(word["probability"])
                if options.get("maps") == "none":
                    assert word["map"] is None
                    continue
                assert sum(word["map"]["values"]) == pytest.approx(1, abs=1e-3)
                x0, y0, x1, y1 = word["box"]
                assert covers[0] - 1 <= x0 < x1 <= covers[2] + 1
                assert covers[1] - 1 <= y0 < y1 <= covers[3] + 1
        same = client.post("/v1/captions", content=png(image), params=options).json()
        assert same["captions"] == body["captions"], "the same request gives the same captions"


def test_covers_is_what_the_crop_keeps(family, views):
    captioner, (width, height) = family[0], views[0].source_size
    covers = views[0].covers
    if captioner.image_config.resize_to:  # 20 x 20, of which the center 16 x 16
        assert (covers.x0, covers.y0) == pytest.approx((0.1 * width, 0.1 * height))
        assert (covers.x1, covers.y1) == pytest.approx((0.9 * width, 0.9 * height))
    else:
        assert (covers.x0, covers.y0, covers.x1, covers.y1) == (0, 0, width, height)
