"""The detector in the stem (model/detector.py), and its weights from a .tflite file (training/efficientdet.py)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from model import DETECTORS, CaptionNetwork, ConfigError, Detector, EncoderConfig, ImageConfig, center_patches
from tests.networks import tiny_config
from training.efficientdet import convolutions, load_detector

FILE = Path(os.environ.get("SIGHTLINE_DETECTOR", "../shared/data/weights/efficientdet-lite2.tflite"))
NAME = "efficientdet_lite2"


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(NAME).eval()


def test_a_class_map_has_a_channel_per_class_and_the_size_of_the_grid(detector):
    with torch.inference_mode():
        class_scores = detector(torch.rand(2, 3, 96, 64) * 2 - 1, torch.Size((6, 4)))
    assert class_scores.shape == (2, DETECTORS[NAME].classes, 6, 4)
    assert class_scores.min() >= 0
    assert class_scores.max() <= 4


def test_levels_halve_and_every_one_depends_on_every_other(detector):
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        maps = detector.backbone(pixels)
        levels = detector.pyramid(maps)
        assert [level.shape[-1] for level in levels] == [16, 8, 4, 2, 1]
        for changed in range(3):
            other = [value + (index == changed) for index, value in enumerate(maps)]
            for before, after in zip(levels, detector.pyramid(other), strict=True):
                assert not torch.equal(before, after)


def test_patches_of_a_centered_stem_see_what_is_in_their_middle():
    """The response of a patch to a bright column is symmetric about the patch's center; without centering it is not."""
    import timm

    def center_of(centered: bool) -> float:
        torch.manual_seed(0)
        backbone = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(3,)).eval()
        if centered:
            center_patches(backbone)
        pixels = torch.randn(1, 3, 480, 480, requires_grad=True)
        (gradient,) = torch.autograd.grad(backbone(pixels)[0][0, :, 15, 15].square().sum(), pixels)
        visible = gradient[0].abs().sum(dim=(0, 1)).nonzero()
        return (visible.min() + visible.max()).item() / 2 - (15 * 16 + 7.5)

    assert abs(center_of(centered=True)) <= 1
    assert center_of(centered=False) > 5


def test_a_network_with_a_detector_reads_its_class_map(tokenizer):
    config = tiny_config(tokenizer.size)
    encoder = dataclasses.replace(
        config.encoder, stem="tf_efficientnet_lite0", stem_strides=(16,), stem_detector=NAME, centered=True
    )
    torch.manual_seed(0)
    network = CaptionNetwork(dataclasses.replace(config, encoder=encoder, image=ImageConfig(height=64, width=64))).eval()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        stem = network.encoder.stem(pixels)
        assert [value.shape[1:] for value in stem] == [(112, 4, 4), (90, 4, 4)]
        before = network.encoder.finish(stem).tokens
        changed = network.encoder.finish((stem[0], stem[1] + 1)).tokens
    assert (before - changed).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("encoder", "image", "message"),
    [
        ({"stem_detector": NAME}, {}, "there is no stem"),
        ({"centered": True}, {}, "there is no stem"),
        ({"stem": "resnet10t", "centered": True}, {}, "centered is true, but the stem has 0 strided convolutions"),
        ({"stem": "tf_efficientnet_lite0", "stem_detector": "yolo"}, {}, "it must be one of efficientdet_lite2"),
        ({"stem": "tf_efficientnet_lite0", "stem_detector": NAME}, {"mean": (0.4, 0.4, 0.4)}, "needs pixels in -1..1"),
    ],
)
def test_wrong_settings_are_named(tokenizer, encoder, image, message):
    def build() -> CaptionNetwork:
        replaced = EncoderConfig(hidden_size=24, num_layers=1, num_heads=2, **encoder)
        size = ImageConfig(height=64, width=64, **image)
        return CaptionNetwork(dataclasses.replace(tiny_config(tokenizer.size), encoder=replaced, image=size))

    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.skipif(not FILE.exists(), reason="the detector's file is not here")
def test_converted_weights_score_as_the_file_does():
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    with pytest.warns(UserWarning, match="intended for debugging"):
        interpreter = interpreters.Interpreter(str(FILE), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    size = interpreter.get_input_details()[0]["shape"][1]
    values = _smooth_image(size)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values[None].numpy())
    interpreter.invoke()
    details = {entry["name"]: entry["index"] for entry in interpreter.get_tensor_details()}
    expected = torch.from_numpy(interpreter.get_tensor(details["Sigmoid1"]))[0]  # (anchors of all levels, classes)

    detector = _uncentered(Detector(NAME).eval())
    load_detector(detector, FILE)
    with torch.inference_mode():
        logits = detector.class_logits(values.permute(2, 0, 1)[None].float() / 127.5 - 1)
    first = 0
    for level in logits:
        rows, columns = level.shape[-2:]
        count = rows * columns * DETECTORS[NAME].anchors
        part = expected[first : first + count].reshape(rows, columns, -1, DETECTORS[NAME].classes).amax(dim=2)
        first += count
        difference = (level[0].sigmoid() - part.permute(2, 0, 1)).abs()
        assert difference.max() < 0.08  # the file computes in 8 bits
        assert difference.mean() < 2e-3
    assert first == len(expected)


@pytest.mark.skipif(not FILE.exists(), reason="the detector's file is not here")
def test_every_convolution_of_the_file_is_used_or_belongs_to_boxes():
    pytest.importorskip("ai_edge_litert")
    detector = Detector(NAME)
    with torch.no_grad():
        for value in (*detector.parameters(), *detector.buffers()):
            value.fill_(float("nan")) if value.is_floating_point() else value.zero_()
    load_detector(detector, FILE)
    assert all(torch.isfinite(value).all() for value in (*detector.parameters(), *detector.buffers()))
    assert len(convolutions(FILE)) == 229


def _uncentered(detector: Detector) -> Detector:
    """Return the detector with the padding that the file was trained with."""
    import timm

    plain = timm.create_model(DETECTORS[NAME].backbone, features_only=True, out_indices=(2, 3, 4)).eval()
    detector.backbone = plain
    return detector


def _smooth_image(size: int) -> torch.Tensor:
    """Return smooth random colors, (size, size, 3) uint8."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return (fine[0].permute(1, 2, 0) * 255).to(torch.uint8)
