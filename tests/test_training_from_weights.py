"""Training that starts from published weights: a converted checkpoint, or an encoder that timm has on a hub."""

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
from tests.networks import tiny_config
from tests.test_convert import edit, png, random_images, saved
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


def test_targets_include_the_end_token_once_even_if_it_is_the_padding_token(converted):
    checkpoint = load_checkpoint(converted)
    decoder = checkpoint.config.decoder
    entries = open_dataset("scenes:8").split("train")
    settings = {"num_views": 1, "captions_per_image": 2, "max_caption_tokens": 200}
    data = TrainingData(entries, checkpoint.tokenizer, checkpoint.config, None, **settings)
    batch = data.batch([0, 1, 2], random.Random(0))
    known = [checkpoint.tokenizer.encode(text) for entry in entries[:3] for text in entry.captions]
    assert len({int(row.sum()) for row in batch.is_target}) > 1, "captions of several lengths"
    for row, is_target in zip(batch.tokens, batch.is_target, strict=True):
        count = int(is_target.sum())
        assert is_target[:count].all(), "targets come first"
        assert row[0] == decoder.bos_token_id
        assert row[count] == decoder.eos_token_id, "the end token is a target, once"
        assert row[1:count].tolist() in known


def test_training_continues_a_converted_checkpoint_with_its_encoder_frozen(converted, tmp_path):
    run = tmp_path / "run"
    assert train.main([*SHORT, "--run", str(run), "--init", str(converted), "--lr", "0.01", "--epochs", "2"]) == 0
    before, after = load_checkpoint(converted), load_checkpoint(run / "last")
    assert after.config.license == "MIT"
    assert after.config.generation == before.config.generation, "the source's default options are kept"
    assert "Started from" in after.card
    for name, value in before.network.state_dict().items():
        same = torch.equal(value.half(), after.network.state_dict()[name].half())
        assert same == name.startswith("encoder."), f"{name}: the encoder is frozen, the rest is trained"
    captioner = Captioner.load(run / "last", dtype="float32")
    (result,) = captioner.caption([prepare(png(next(random_images())), captioner.image_config)])
    assert result.grid.num_patches == 16
    assert len(list((run / "features").glob("*/part-*"))) == 2, "cached for training and for validation"


def test_features_from_a_frozen_parts_output_equal_the_encoders():
    torch.manual_seed(0)
    encoder = PatchEncoder(
        EncoderConfig(hidden_size=24, num_layers=1, num_heads=2, patch_size=8), ImageConfig(height=24, width=32)
    ).eval()
    pixels = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        expected = encoder(pixels).tokens
        for kind in ("none", "encoder"):
            part = FrozenPart(kind)
            torch.testing.assert_close(part.features(encoder, part.output(encoder, pixels)).tokens, expected)


def test_cached_features_of_another_number_of_heads_are_not_used(tmp_path, tokenizer):
    entries = open_dataset("scenes:4").split("train")
    for number, heads in enumerate((2, 3, 2)):
        config = tiny_config(tokenizer.size)
        encoder = dataclasses.replace(config.encoder, num_heads=heads)
        torch.manual_seed(0)
        network = CaptionNetwork(dataclasses.replace(config, encoder=encoder)).eval()
        cached_features(tmp_path, network, FrozenPart("encoder"), entries, 1, torch.float32, "x")
        assert len(list(tmp_path.iterdir())) == (1, 2, 2)[number]


def test_features_that_overflow_are_not_cached(tmp_path, tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size)).eval()
    with torch.no_grad():
        network.encoder.vit.norm.bias[0] = float("inf")
    entries = open_dataset("scenes:2").split("train")
    with pytest.raises(ConfigError, match="overflows in float32"):
        cached_features(tmp_path, network, FrozenPart("encoder"), entries, 1, torch.float32, "x")


def test_a_run_pins_the_commit_that_it_starts_from(hub, tmp_path):  # noqa: F811
    saved("vit_gpt2", tmp_path / "source")
    commit = hub.put("organization/tiny", tmp_path / "source")
    run = [*SHORT, "--run", str(tmp_path / "run"), "--init", "hub:organization/tiny", "--license", "MIT", "--max-steps", "1"]
    assert train.main(run) == 0
    assert load_state(tmp_path / "run").settings["init"] == f"hub:organization/tiny@{commit}"
    assert load_checkpoint(tmp_path / "run/last").config.license == "MIT"


def test_a_run_of_an_older_version_can_be_restored():
    settings = {"data": ["scenes:4"], "run": "x", "init": "y", "image_size": 224, "freeze": "stem", "resume": True}
    assert restored_config(settings).image_size == 224


def test_a_feature_cache_that_does_not_fit_on_the_disk_is_an_error_before_it_is_written(converted, tmp_path, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 10_000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert train.main([*SHORT, "--run", str(tmp_path / "run"), "--init", str(converted)]) == 1
    assert "the frozen features take" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_xsmall_patch16_clip_224", "vit_little_patch16_reg4_gap_256"])
def test_a_timm_encoder_equals_timms_forward_pass(name):
    config, image = timm_configs(name, 64)
    torch.manual_seed(0)
    encoder = PatchEncoder(config, image).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder(pixels)
        torch.testing.assert_close(features.tokens, encoder.vit.forward_features(pixels), atol=1e-5, rtol=1e-5)
    assert features.tokens.shape == (2, config.num_prefix_tokens + 16, config.hidden_size)


@pytest.mark.parametrize(
    ("name", "message"), [("vit_nothing", "is not known to timm"), ("resnet18", "is a ResNet of another kind")]
)
def test_an_encoder_that_is_not_a_plain_vit_of_timm_is_refused_by_name(name, message):
    with pytest.raises(ConfigError, match=message):
        timm_configs(name, 64)


def test_training_starts_with_the_weights_that_timm_has_on_a_hub(hub, tmp_path, capsys):  # noqa: F811
    name, folder = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", tmp_path / "timm"
    torch.manual_seed(1)
    published = timm.create_model(name).state_dict()
    folder.mkdir()
    save_file(published, folder / "model.safetensors")
    encoder = [
        "--encoder",
        name,
        "--pretrained",
        "--image-size",
        "64",
        "--hidden-size",
        "32",
        "--num-heads",
        "2",
        "--decoder-layers",
        "1",
    ]
    run = [*SHORT, *encoder, "--vocab-size", "300", "--max-steps", "1"]
    assert train.main([*run, "--run", str(tmp_path / "missing")]) == 1
    assert "cannot be created" in capsys.readouterr().err

    hub.put(f"timm/{name}", folder)
    assert train.main([*run, "--run", str(tmp_path / "run")]) == 0
    checkpoint = load_checkpoint(tmp_path / "run/last")
    weights = checkpoint.network.encoder.vit.state_dict()
    same = [key for key, value in weights.items() if key != "pos_embed" and torch.equal(value, published[key].half().float())]
    assert len(same) == len(weights) - 1, "all but the positions, which have another size"
    assert checkpoint.config.encoder.timm_model == name
    assert checkpoint.config.image.mean == (0.5, 0.5, 0.5)

    edit(tmp_path / "run/last", "config.json", lambda config: config["encoder"].update(num_heads=4))
    with pytest.raises(ConfigError, match="the config says"):
        load_checkpoint(tmp_path / "run/last")
