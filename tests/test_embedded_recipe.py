"""The recipe of the embedded checkpoint (training/embedded/): weak captions, gains, vocabulary, languages, start."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from corpus import DataError, open_dataset
from evaluation import coco_synonyms, png_bytes
from model import CaptionNetwork, Checkpoint, ConfigError
from tests.networks import redraw, tiny_config
from training import parse_arguments
from training.embedded import __main__ as recipe
from training.embedded.data import EmbeddedData, write_weak
from training.embedded.start import LANGUAGES, interpolated, start_network, with_tokens
from training.embedded.vocabulary import spelled_by, with_more_tokens
from training.embedded.weak import WeakCaptions, excluded, parse_text, weak_captions

CAPTIONS = {
    "1": ["a man rides a horse", "a person on a brown horse"],
    "2": ["two dogs in a kitchen", "a dog and another dog"],
    "3": ["a dog with a frisbee", "a dog runs"],
    "4": ["a street at night"],
}


@pytest.fixture(scope="module")
def texts():
    synonyms = coco_synonyms()
    return [parse_text(text, image, synonyms) for image, captions in CAPTIONS.items() for text in captions]


def matches(texts, *detections, count=10):
    boxes = [(0.1, 0.1, 0.9, 0.9, name, score) for name, score in detections]
    return [texts[number].caption for _, number in WeakCaptions(texts).candidates(boxes, count)]


def test_a_caption_that_names_what_is_not_detected_is_never_used(texts):
    assert set(matches(texts, ("dog", 0.9))) == {"two dogs in a kitchen", "a dog and another dog", "a dog runs"}
    assert "a dog with a frisbee" in matches(texts, ("dog", 0.9), ("frisbee", 0.2))


def test_the_number_of_objects_decides_between_equal_captions(texts):
    assert matches(texts, ("dog", 0.9))[0] == "a dog runs"
    assert matches(texts, ("dog", 0.9), ("dog", 0.8))[0] in CAPTIONS["2"]


def test_captions_that_name_more_of_what_is_shown_come_first(texts):
    assert matches(texts, ("person", 0.9), ("horse", 0.9))[0] in CAPTIONS["1"]
    assert matches(texts) == []
    assert matches(texts, ("zebra", 0.9)) == []


def test_at_most_so_many_captions_of_so_many_images(texts):
    order = [(1.0, 0), (0.9, 1), (0.8, 2), (0.7, 4)]
    assert weak_captions(texts, order, images=1, per_image=5) == CAPTIONS["1"]
    assert len(weak_captions(texts, order, images=9, per_image=3)) == 3


def test_captions_of_evaluation_images_are_never_texts():
    kept = excluded({"397133": ["x"], "37777": ["y"]}, {"000000397133"})
    assert kept == {"37777": ["y"]}


def test_more_tokens_keep_the_ids_of_the_old_ones(tokenizer):
    texts = ["زرافة وزرافة", "زرافة", "长颈鹿在吃草", "长颈鹿"] * 3
    grown = with_more_tokens(tokenizer, texts, 20)
    assert tokenizer.size < grown.size <= tokenizer.size + 20
    for index in range(tokenizer.size):
        assert grown.decode([index]) == tokenizer.decode([index])
    for text in texts:
        assert len(grown.encode(text)) < len(tokenizer.encode(text))
        assert grown.decode(grown.encode(text)) == text
    assert grown.encode("a red square") == tokenizer.encode("a red square")


def test_a_network_starts_with_the_captions_of_its_predecessor(tokenizer, monkeypatch):
    torch.manual_seed(0)
    config = tiny_config(tokenizer.size)
    encoder = dataclasses.replace(config.encoder, stem="tf_efficientnet_lite0", stem_strides=(8,))
    previous = CaptionNetwork(dataclasses.replace(config, encoder=encoder)).eval()
    redraw(previous, 3, 0.1)
    before = copy.deepcopy(previous.state_dict())
    more = with_tokens(tokenizer, {"zh": (["长颈鹿在吃草", "长颈鹿"], 5)})
    monkeypatch.setattr("training.embedded.start.load_detector", lambda detector, path: None)
    network, grown = start_network(Checkpoint(previous, tokenizer, ""), more, Path("unused"))
    assert [grown.id_of(f"<{language}>") for language in LANGUAGES] == [more.size + index for index in range(4)]
    assert network.config.language_token_ids == tuple(range(more.size, grown.size))

    assert network.config.languages == LANGUAGES
    assert all(torch.equal(value, before[name]) for name, value in previous.state_dict().items()), "the predecessor is unchanged"
    table, old = network.decoder.token_embedding.weight, previous.decoder.token_embedding.weight
    torch.testing.assert_close(table[: tokenizer.size], old)
    # After the start token, the language token and what follows are where the start token and what follows were.
    for index in network.config.language_token_ids:
        torch.testing.assert_close(table[index], old[previous.config.decoder.bos_token_id])
    positions, before_it = network.decoder.position_embedding.weight, previous.decoder.position_embedding.weight
    torch.testing.assert_close(positions[1:], before_it[:-1])
    with pytest.raises(ConfigError, match="has a detector already"):
        start_network(Checkpoint(network, grown, ""), grown, Path("unused"))
    columns = previous.encoder.vit.patch_embed.proj.weight
    grown_columns = network.encoder.vit.patch_embed.proj.weight
    torch.testing.assert_close(grown_columns[:, : columns.size(1)], columns)
    assert not grown_columns[:, columns.size(1) :].any(), "the class map is not used yet"
    parts = spelled_by(tokenizer, grown)
    assert sorted(parts) == list(range(tokenizer.size, grown.size - len(LANGUAGES)))
    for piece, spelled in parts.items():
        assert len(spelled) > 1
        torch.testing.assert_close(table[piece], previous.decoder.token_embedding.weight[spelled].mean(dim=0))


def test_a_network_between_two_has_their_weights_by_share(tokenizer):
    networks = []
    for seed in (1, 2):
        networks.append(CaptionNetwork(tiny_config(tokenizer.size, stem="resnet10t")).double())
        redraw(networks[-1], seed)
    before, after = (network.state_dict() for network in networks)
    between = interpolated(*networks, 0.75).double().state_dict()
    assert set(between) == set(after)
    for name, value in between.items():
        expected = 0.25 * before[name] + 0.75 * after[name] if value.is_floating_point() else after[name]
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)


@pytest.fixture
def data(tmp_path):
    """A data folder: captions of COCO in its layout, evaluation ids, two shards without captions, detections."""
    (tmp_path / "evaluation_ids.txt").write_text("000000000007\n")
    annotations = [{"image_id": 7, "id": 1, "caption": "A zebra of the evaluation stands here."}]
    annotations += [{"image_id": 8, "id": 2, "caption": "A  dog runs on grass. "}, {"image_id": 8, "id": 3, "caption": "Dog."}]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"images": [], "annotations": annotations}))
    (tmp_path / "coco_unlabelled").mkdir()
    (tmp_path / "detections").mkdir()
    with tarfile.open(tmp_path / "coco_unlabelled" / "images-00.tar", "w") as shard:
        for name in ("COCO_a", "COCO_b"):
            content = png_bytes(Image.new("RGB", (24, 24), "red"))
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    rows = [{"image": "COCO_a", "boxes": [[0.1, 0.1, 0.9, 0.9, 18, 0.9]]}, {"image": "COCO_b", "boxes": []}]
    with gzip.open(tmp_path / "detections" / "coco_unlabelled.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return EmbeddedData(tmp_path, captions)


def test_texts_have_no_caption_of_an_evaluation_image(data):
    texts = data.texts()
    assert [text.caption for text in texts] == ["a dog runs on grass"]
    assert texts[0].classes == {"dog": False}
    data.captions.write_text("{")
    with pytest.raises(DataError, match="no COCO captions"):
        data.texts()


def test_weak_captions_are_a_folder_that_can_be_trained_on(data, tmp_path):
    texts = data.texts()
    finder = WeakCaptions(texts)
    chosen = {
        image: weak_captions(texts, finder.candidates(boxes, 5), 8, 6) for image, boxes in data.unlabelled_detections().items()
    }
    assert chosen == {"COCO_a": ["a dog runs on grass"], "COCO_b": []}
    write_weak(tmp_path / "weak", data.unlabelled, chosen)
    (entry,) = open_dataset(str(tmp_path / "weak")).split("train")
    assert (entry.image_id, entry.captions) == ("COCO_a", ("a dog runs on grass",))
    assert entry.load().size == (24, 24)
    write_weak(tmp_path / "weak", data.unlabelled, {"COCO_b": ["a cat"]})
    assert [entry.image_id for entry in open_dataset(str(tmp_path / "weak")).split("train")] == ["COCO_b"]


def test_the_recipe_stops_with_a_message(tmp_path, capsys):
    flags = ["--data", str(tmp_path), "--captions", str(tmp_path / "no.json"), "--previous", str(tmp_path)]
    assert recipe.main([*flags, "--run", str(tmp_path / "run")]) == 1
    assert "training.embedded: " in capsys.readouterr().err
    for flags in (recipe.FIRST_FLAGS, recipe.SECOND_FLAGS):
        parsed = parse_arguments(["--run", "r", "--data", "scenes:9", "--init", "x", *flags])
        assert parsed.num_views == 1
        assert parsed.region_weight > 0
    assert parsed.self_critical_weight > 0
