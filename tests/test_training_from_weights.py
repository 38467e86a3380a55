"""Training on from somebody else's weights: a converted checkpoint, or an encoder that timm has on a hub."""

from __future__ import annotations

import dataclasses
import random

import pytest
import timm
import torch
from safetensors.torch import save_file

import train
from corpus import open_dataset
from model import (
    Captioner,
    CaptionNetwork,
    ConfigError,
    EncoderConfig,
    ImageConfig,
    PatchEncoder,
    load_checkpoint,
    prepare,
    timm_configs,
)
from model.pretrained import convert_source
from tests.conftest import tiny_config
from tests.test_convert import edit, photographs, png, saved
from tests.test_hub import hub  # noqa: F401  the fixture
from training import FrozenPart, TrainingData, cached_features, load_state, restored_config

SHORT = [
    "--data", "scenes:24", "--batch-size", "8", "--epochs", "1", "--eval-images", "4", "--dtype", "float32", "--threads", "1",
    "--num-views", "1", "--ema-decay", "0.1", "--dropout", "0",
]  # fmt: skip


@pytest.fixture(params=["vit_gpt2", "blip", "trocr"])
def converted(request, tmp_path):
    saved(request.param, tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours", license="MIT")
    return tmp_path / "ours"


def test_targets_are_told_by_length_where_padding_is_the_end_token(converted):
    checkpoint = load_checkpoint(converted)
    decoder = checkpoint.config.decoder
    entries = open_dataset("scenes:8").split("train")
    settings = {"num_views": 1, "captions_per_image": 2, "max_caption_tokens": 200}
    source = TrainingData(entries, checkpoint.tokenizer, checkpoint.config, None, **settings)
    batch = source.batch([0, 1, 2], random.Random(0))
    known = [checkpoint.tokenizer.encode(text) for entry in entries[:3] for text in entry.captions]
    assert len({int(row.sum()) for row in batch.is_target}) > 1, "captions of several lengths"
    for row, real in zip(batch.tokens, batch.is_target, strict=True):
        count = int(real.sum())
        assert real[:count].all(), "what is real comes first"
        assert row[0] == decoder.bos_token_id
        assert row[count] == decoder.eos_token_id, "the end token is learnt, once"
        assert row[1:count].tolist() in known


def test_a_converted_checkpoint_is_trained_on_with_its_encoder_frozen(converted, tmp_path):
    run = tmp_path / "run"
    assert train.main([*SHORT, "--run", str(run), "--init", str(converted), "--lr", "0.01", "--epochs", "2"]) == 0
    before, after = load_checkpoint(converted), load_checkpoint(run / "last")
    assert after.config.license == "MIT"
    assert after.config.generation == before.config.generation, "a source's own defaults of decoding stay"
    assert "Started from" in after.card
    for name, value in before.network.state_dict().items():
        same = torch.equal(value.half(), after.network.state_dict()[name].half())
        assert same == name.startswith("encoder."), f"{name}: the encoder stays, the rest learns"
    captioner = Captioner.load(run / "last", dtype="float32")
    (answer,) = captioner.caption([prepare(png(next(photographs())), captioner.image_config)])
    assert answer.grid.num_patches == 16
    assert len(list((run / "features").iterdir())) == 2, "kept once for training, once for validation"


def test_what_is_kept_of_a_frozen_encoder_is_what_it_gives():
    torch.manual_seed(0)
    encoder = PatchEncoder(EncoderConfig(hidden_size=24, num_layers=1, num_heads=2, patch_size=8), ImageConfig(height=24, width=32)).eval()
    pixels = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        wanted = encoder(pixels).tokens
        for kind in ("none", "encoder"):
            part = FrozenPart(kind)
            torch.testing.assert_close(part.features(encoder, part.output(encoder, pixels)).tokens, wanted)


def test_features_of_another_number_of_heads_are_not_taken_for_these(tmp_path, tokenizer):
    entries = open_dataset("scenes:4").split("train")
    for number, heads in enumerate((2, 3, 2)):
        config = tiny_config(tokenizer.size)
        encoder = dataclasses.replace(config.encoder, heads=heads)
        torch.manual_seed(0)
        network = CaptionNetwork(dataclasses.replace(config, encoder=encoder)).eval()
        cached_features(tmp_path, network, FrozenPart("encoder"), entries, 1, torch.float32, "x")
        assert len(list(tmp_path.iterdir())) == (1, 2, 2)[number]


def test_a_run_stays_with_the_commit_that_it_began_with(hub, tmp_path):  # noqa: F811
    saved("vit_gpt2", tmp_path / "source")
    commit = hub.put("somebody/tiny", tmp_path / "source")
    run = [*SHORT, "--run", str(tmp_path / "run"), "--init", "hub:somebody/tiny", "--license", "MIT", "--max-steps", "1"]
    assert train.main(run) == 0
    assert load_state(tmp_path / "run")[2]["init"] == f"hub:somebody/tiny@{commit}"
    assert load_checkpoint(tmp_path / "run/last").config.license == "MIT"


def test_a_run_from_before_sizes_could_be_left_open_resumes():
    settings = {"data": ["scenes:4"], "run": "x", "init": "y", "image_size": 224, "freeze": "stem", "resume": True}
    assert restored_config(settings).image_size == 224


def test_a_cache_that_the_disk_has_no_room_for_is_told_before_it_is_written(converted, tmp_path, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 10_000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert train.main([*SHORT, "--run", str(tmp_path / "run"), "--init", str(converted)]) == 1
    assert "the frozen features take" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_xsmall_patch16_clip_224", "vit_little_patch16_reg4_gap_256"])
def test_an_encoder_that_timm_knows_gives_what_timm_gives(name):
    config, image = timm_configs(name, 64)
    torch.manual_seed(0)
    encoder = PatchEncoder(config, image).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder(pixels)
        torch.testing.assert_close(features.tokens, encoder.vit.forward_features(pixels), atol=1e-5, rtol=1e-5)
    assert features.tokens.shape == (2, config.num_prefix_tokens + 16, config.width)


@pytest.mark.parametrize(
    ("name", "message"), [("vit_nothing", "is not known to timm"), ("resnet18", "is a ResNet of another kind")]
)
def test_an_encoder_that_is_no_vit_of_timm_is_refused_by_name(name, message):
    with pytest.raises(ConfigError, match=message):
        timm_configs(name, 64)


def test_training_begins_with_the_weights_that_timm_has_on_a_hub(hub, tmp_path, capsys):  # noqa: F811
    name, there = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", tmp_path / "timm"
    torch.manual_seed(1)
    published = timm.create_model(name).state_dict()
    there.mkdir()
    save_file(published, there / "model.safetensors")
    encoder = ["--encoder", name, "--pretrained", "--image-size", "64", "--hidden-size", "32", "--num-heads", "2", "--decoder-layers", "1"]
    run = [*SHORT, *encoder, "--vocab-size", "300", "--max-steps", "1"]
    assert train.main([*run, "--run", str(tmp_path / "nowhere")]) == 1
    assert "cannot be made" in capsys.readouterr().err

    hub.put(f"timm/{name}", there)
    assert train.main([*run, "--run", str(tmp_path / "run")]) == 0
    checkpoint = load_checkpoint(tmp_path / "run/last")
    found = checkpoint.network.encoder.vit.state_dict()
    same = [key for key, value in found.items() if key != "pos_embed" and torch.equal(value, published[key].half().float())]
    assert len(same) == len(found) - 1, "all but the positions, which are of another size"
    assert checkpoint.config.encoder.timm_model == name
    assert checkpoint.config.image.mean == (0.5, 0.5, 0.5)

    edit(tmp_path / "run/last", "config.json", lambda config: config["encoder"].update(heads=4))
    with pytest.raises(ConfigError, match="the config says"):
        load_checkpoint(tmp_path / "run/last")
