"""The comparison of logits detects what generated tokens never reveal: one wrong field, or values in another order."""

from __future__ import annotations

import pytest

from tests.peers import MAX_POSITIONS, build, logits_of
from tests.test_pretrained import EQUAL, converted, difference, inputs, ours


@pytest.mark.parametrize(
    ("family", "mistake"),
    [
        *[(family, {"layer_norm_eps": 1e-6}) for family in ("blip", "vit_gpt2", "trocr")],
        *[(family, {"encoder_layer_norm_eps": 1e-6}) for family in ("blip", "vit_gpt2", "trocr")],
        ("vit_gpt2", {"activation": "gelu"}),
        ("blip", {"activation": "gelu_tanh"}),
        ("trocr", {"activation": "quick_gelu"}),
        ("blip", {"num_heads": 2}),
        ("vit_gpt2", {"num_heads": 8}),
        ("trocr_stage1", {"embedding_scale": 1.0}),
        *[(family, {"layer_norm_eps": 2e-5}) for family in ("beit_bert", "swin_roberta", "dinov2_mbart", "florence2")],
        *[(family, {"encoder_layer_norm_eps": 2e-6}) for family in ("beit_bert", "swin_roberta", "dinov2_mbart", "florence2")],
        ("swinv2_xlm-roberta", {"encoder_pretrained_window_sizes": (0, 0)}),
        ("swinv2_xlm-roberta", {"activation": "gelu_tanh"}),
        ("donut-swin_mbart", {"embedding_scale": 1.0}),
        ("dinov2_mbart", {"encoder_num_heads": 2}),
        ("florence2", {"encoder_window_size": 2}),
        ("florence2", {"encoder_stage_heads": (4, 4)}),
        ("florence2", {"prompt_layer_norm_eps": 2e-5}),
        ("florence2", {"prompt_activation": "gelu_tanh"}),
        ("florence2", {"prompt_num_heads": 2}),
        ("florence2", {"prompt_embedding_scale": 2.0}),
        ("florence2", {"prompt_position_offset": 1, "prompt_max_positions": MAX_POSITIONS + 1}),
        ("blip", {"pre_norm": True}),
    ],
)
def test_a_mistake_in_one_field_changes_the_logits(family, mistake):
    """Generated tokens never reveal a wrong epsilon or a wrong gelu; the bound on logits does."""
    peer = build(family)
    pixels, tokens = inputs()
    _, logits, _ = ours(converted(peer, **mistake), pixels, tokens)
    assert difference(logits, logits_of(peer, pixels, tokens)) > 1e5 * EQUAL


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("florence2", "encoder.projector.positions"),  # rows and columns
        ("florence2", "encoder.backbone.stages.1.blocks.0.channel_block.attn.qkv.weight"),
        ("florence2", "prompt_encoder.layers.1.attention.query.weight"),
        ("swin_roberta", "encoder.backbone.layers.1.downsample.reduction.weight"),
        ("swin_roberta", "encoder.backbone.layers.0.blocks.1.attn.relative_position_bias_table"),
        ("swinv2_xlm-roberta", "encoder.backbone.layers.0.blocks.1.attn.logit_scale"),
        ("beit_bert", "encoder.backbone.blocks.0.gamma_1"),
        ("beit_bert", "encoder.backbone.blocks.1.attn.relative_position_bias_table"),
        ("dinov2_mbart", "encoder.vit.blocks.1.ls2.gamma"),
    ],
)
def test_values_in_another_order_change_the_logits(family, name):
    """The shapes are the same; only the values say that something has been swapped."""
    peer = build(family)
    network = converted(peer)
    weight = network.get_parameter(name)
    weight.copy_(weight.roll(1, -1 if weight.dim() < 3 else 0) if weight.size(-1) > 1 or weight.dim() > 2 else weight.roll(1, 0))
    pixels, tokens = inputs()
    assert difference(ours(network, pixels, tokens)[1], logits_of(peer, pixels, tokens)) > 1e-5


@pytest.mark.parametrize("name", ["self_attention.out", "cross_attention.query", "cross_attention.out"])
def test_a_square_weight_that_is_not_transposed_changes_the_logits(name):
    peer = build("vit_gpt2")
    network = converted(peer)
    weight = network.get_parameter(f"decoder.layers.1.{name}.weight")
    weight.copy_(weight.T.clone())
    pixels, tokens = inputs()
    assert difference(ours(network, pixels, tokens)[1], logits_of(peer, pixels, tokens)) > 1e-3
