"""Configurations: checked when made, the same after a round trip through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import (
    ConfigError,
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    MapConfig,
    ModelConfig,
    from_json,
    to_json,
)


@given(
    st.builds(
        GenerationOptions,
        strategy=st.just("beam"),
        beams=st.integers(3, 8),
        count=st.integers(1, 3),
        max_words=st.integers(10, 60),
        length_penalty=st.floats(-2, 4),
        top_p=st.floats(0, 1),
        seed=st.integers(-(2**63), 2**63 - 1),
        prompt=st.text(),
    )
)
def test_options_survive_json(options):
    assert from_json(GenerationOptions, json.loads(json.dumps(to_json(options)))) == options


def test_a_model_config_survives_json():
    config = ModelConfig(
        encoder=EncoderConfig(stem="resnet18", stem_strides=(16, 32), registers=4),
        maps=MapConfig(heads=((0, 1), (2, 5)), pointing=0.5),
        languages=("en", "zh"),
    )
    assert from_json(ModelConfig, json.loads(json.dumps(to_json(config)))) == config
    assert config.encoder.prefix == 5
    assert config.encoder.stride == 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationOptions(beams=0), "beams is 0"),
        (lambda: GenerationOptions(strategy="best"), "strategy is 'best'"),
        (lambda: GenerationOptions(count=4), "count is 4"),
        (lambda: GenerationOptions(strategy="greedy", count=2), "count is 2"),
        (lambda: GenerationOptions(min_words=40), "min_words is 40"),
        (lambda: GenerationOptions(temperature=float("nan")), "temperature is nan"),
        (lambda: DecoderConfig(width=30, heads=4), "multiple of its heads"),
        (lambda: DecoderConfig(end_id=5000), "end_id is 5000"),
        (lambda: EncoderConfig(width=30, heads=4), "multiple of its heads"),
        (lambda: EncoderConfig(stem="resnet18", stem_strides=(32, 16)), "smallest first"),
        (lambda: ImageConfig(std=(0.5, 0.0, 0.5)), "std above 0"),
        (lambda: ModelConfig(encoder=EncoderConfig(width=48)), "must be equal"),
        (lambda: ModelConfig(languages=()), "languages is empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
