"""Configurations: checked when created, and unchanged by a round trip through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import (
    ConfidenceConfig,
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
        num_beams=st.integers(3, 8),
        num_return_sequences=st.integers(1, 3),
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
        encoder=EncoderConfig(stem="resnet18", stem_strides=(16, 32), num_register_tokens=4),
        maps=MapConfig(heads=((0, 1), (2, 5)), pointing=0.5),
        confidence=ConfidenceConfig(word_offsets={"dog": 1.5}),
        languages=("en", "zh"),
        language_token_ids=(5, 6),
    )
    assert from_json(ModelConfig, json.loads(json.dumps(to_json(config)))) == config
    assert config.encoder.num_prefix_tokens == 5
    assert config.encoder.stride == 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationOptions(num_beams=0), "num_beams is 0"),
        (lambda: GenerationOptions(strategy="best"), "strategy is 'best'"),
        (lambda: GenerationOptions(num_return_sequences=4), "num_return_sequences is 4"),
        (lambda: GenerationOptions(strategy="greedy", num_return_sequences=2), "num_return_sequences is 2"),
        (lambda: GenerationOptions(min_words=40), "min_words is 40"),
        (lambda: GenerationOptions(temperature=float("nan")), "temperature is nan"),
        (lambda: DecoderConfig(hidden_size=30, num_heads=4), "multiple of num_heads"),
        (lambda: DecoderConfig(eos_token_id=5000), "eos_token_id is 5000"),
        (lambda: EncoderConfig(hidden_size=30, num_heads=4), "multiple of num_heads"),
        (lambda: EncoderConfig(stem="resnet18", stem_strides=(32, 16)), "smallest first"),
        (lambda: ImageConfig(std=(0.5, 0.0, 0.5)), "std above 0"),
        (lambda: ModelConfig(encoder=EncoderConfig(hidden_size=48)), "must be equal"),
        (lambda: ModelConfig(languages=()), "languages is empty"),
        (lambda: ModelConfig(languages=("en", "zh")), "has a token for each"),
        (lambda: ModelConfig(language_token_ids=(5000,)), "ids must be in"),
    ],
)
def test_an_invalid_value_is_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
