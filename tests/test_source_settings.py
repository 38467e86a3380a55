"""Generation settings of sources: all are taken over, or left out and listed on the card with their reason."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from model import CheckpointError, load_checkpoint
from model.__main__ import main
from model.pretrained import convert_source
from model.pretrained.settings import NEWER_SETTINGS, OLDER_DEFAULTS, adopted_options, used_settings
from model.pretrained.special_ids import special_ids
from tests.test_convert import edit, saved


def test_the_tables_of_defaults_are_those_of_transformers():
    assert GenerationConfig._get_default_generation_params() == OLDER_DEFAULTS
    names = {name for name in vars(GenerationConfig()) if name not in ("_from_model_config", "transformers_version")}
    assert names == OLDER_DEFAULTS.keys() | set(NEWER_SETTINGS)
    assert not [name for name in NEWER_SETTINGS if getattr(GenerationConfig(), name) is not None]


LISTED = [  # a setting of generation_config.json, and the reason for which the card lists it
    ("length_penalty", 10.0, "left out: it must be between -2 and 4"),
    ("length_penalty", "2", "left out: it must be float"),
    ("length_penalty", float("nan"), "left out: it must be between -2 and 4"),
    ("length_penalty", 10**400, "left out: it is too large"),
    ("length_penalty", True, "left out: it must be float"),
    ("num_beams", 10, "num_beams is 8, the largest that is possible here"),
    ("num_beams", -1, "left out: it must be an integer, 1 or above"),
    ("num_beams", 0, "left out: it must be an integer"),
    ("num_beams", "3", "left out: it must be an integer"),
    ("num_beams", 2.5, "left out: it must be an integer"),
    ("max_length", 4000, "max_new_tokens is 1024, the largest"),
    ("max_length", "a", "left out: it must be an integer, 2 or above"),
    ("max_length", 1, "left out: it must be an integer, 2 or above"),
    ("max_length", [20], "left out: it must be an integer"),
    ("max_new_tokens", 0, "left out: it must be an integer, 1 or above"),
    ("max_new_tokens", 10**9, "max_new_tokens is 1024"),
    ("min_new_tokens", 300, "min_new_tokens is 11, the largest"),  # max_length is 12
    ("min_new_tokens", -3, "left out: it must be an integer, 0 or above"),
    ("min_length", -1, "left out"),
    ("early_stopping", "sometimes", "left out: it must be"),
    ("repetition_penalty", 0, "left out: it must be between 0.5 and 2"),
    ("repetition_penalty", -1.5, "left out: it must be between 0.5 and 2"),
    ("no_repeat_ngram_size", 40, "left out: it must be between 0 and 6"),
    ("no_repeat_ngram_size", 2.0, "left out: it must be int"),
    ("temperature", 0.0, "left out: it must be between 0.05 and 5"),
    ("top_p", 7, "left out: it must be between 0 and 1"),
    ("top_k", -1, "left out: it must be between 0 and 1000"),
    ("num_return_sequences", 3, "one caption by default"),
    ("do_sample", True, "captions are not sampled by default"),
    ("do_sample", "yes", "captions are not sampled by default"),
    ("stop_strings", ["."], "it has no equivalent here"),
    ("penalty_alpha", 0.6, "it has no equivalent here"),
    ("guidance_scale", 1.5, "it has no equivalent here"),
    ("num_beam_groups", 2, "it has no equivalent here"),
    ("bad_words_ids", [[5]], "it has no equivalent here"),
    ("exponential_decay_length_penalty", [3, 1.1], "it has no equivalent here"),
    ("use_cache", False, "it does not change captions"),
    ("output_scores", True, "it does not change captions"),
    ("a_setting_of_tomorrow", {"a": 1}, "it is not a setting of `generate`"),
    ("seed", 5, "it is not a setting of `generate`"),
    ("prompt", "a photo of", "it is not a setting of `generate`"),
    ("max_words", 3, "it is not a setting of `generate`"),
    ("strange|name\n# x", "`|\n", "it is not a setting of `generate`"),
]


@pytest.mark.parametrize(("name", "value", "reason"), LISTED)
def test_a_setting_that_is_not_taken_over_is_left_out_and_listed(name, value, reason):
    plain, none = adopted_options({"max_length": 12})
    options, several = adopted_options({"max_length": 12, name: value})
    assert not none
    listed = next(one for one in several if one.name == name)
    assert str(listed.value) == str(value)
    assert listed.reason.startswith(reason)
    assert "\n" not in listed.row
    assert len(listed.row.replace("\\|", "").split("|")) == 3
    if not any(part in reason for part in ("largest", "is 1024")) and name not in ("max_length", "do_sample"):
        assert options == plain, "it changes no option"


def test_the_card_names_setting_value_and_reason_and_the_command_prints_them(tmp_path, capsys):
    folder = tmp_path / "source"
    saved("vit_gpt2", folder)
    edit(folder, "generation_config.json", lambda c: c.update(stop_strings=["."], length_penalty=10.0, new_in_6=[1]))
    edit(folder, "config.json", lambda c: c.update(num_beams=5, task_specific_params={"x": {"num_beams": 2}}))
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    card, printed = load_checkpoint(tmp_path / "ours").card, capsys.readouterr().err
    for name, value, reason in (
        ("stop_strings", "['.']", "it has no equivalent here"),
        ("length_penalty", "10.0", "left out: it must be between -2 and 4"),
        ("new_in_6", "[1]", "it is not a setting of `generate`"),
        ("config.json num_beams", "5", "`generate` does not read it there"),
        ("task_specific_params", "{'x': {'num_beams': 2}}", "`generate` does not read it"),
    ):
        assert f"\n| {name} | `{value}` | {reason} |\n" in card
        assert f"taken over: {name} {value}: {reason}\n" in printed
    generation = load_checkpoint(tmp_path / "ours").config.generation
    assert (generation.num_beams, generation.length_penalty) == (3, 1.0)


def test_every_default_is_taken_over_without_a_word():
    used, unread = used_settings({"model_type": "blip", "text_config": OLDER_DEFAULTS}, OLDER_DEFAULTS)
    assert (used, unread) == ({}, ())
    options, left_out = adopted_options(OLDER_DEFAULTS)
    assert not left_out
    assert (options.strategy, options.max_new_tokens, options.top_k) == ("greedy", 19, 0)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"decoder_start_token_id": 2, "eos_token_id": [2, 50256], "pad_token_id": 1}, (2, (2, 50256), 1)),
        ({"bos_token_id": 0, "eos_token_id": [3, 3, 2]}, (0, (3, 2), 3)),
        ({"bos_token_id": 0, "eos_token_id": []}, "eos_token_id is None; it must be one id"),
        ({"bos_token_id": [0, 1], "eos_token_id": 2}, r"decoder_start_token_id is \[0, 1\]; it must be one id"),
        ({"bos_token_id": 0, "eos_token_id": "2"}, "eos_token_id is '2'; it must be an id, or a list of ids"),
        ({"bos_token_id": 0, "eos_token_id": [2, None]}, r"eos_token_id is \[2, None\]"),
        ({"bos_token_id": 0, "eos_token_id": -1}, "eos_token_id is -1"),
        ({"eos_token_id": 2}, "decoder_start_token_id is None"),
    ],
)  # fmt: skip
def test_special_ids_are_those_of_generate_or_an_error_that_names_them(ids, expected):
    if isinstance(expected, str):
        with pytest.raises(CheckpointError, match=expected):
            special_ids(ids)
    else:
        one = special_ids(ids)
        assert (one.start, one.ends, one.pad) == expected


def test_an_end_id_that_is_no_special_token_is_refused_by_its_name(tmp_path):
    folder = tmp_path / "source"
    saved("trocr", folder)
    edit(folder, "generation_config.json", lambda c: c.update(eos_token_id=[2, 40]))
    with pytest.raises(CheckpointError, match="more_eos_token_ids is 40, which is not a special token of its tokenizer; copy"):
        convert_source(folder, tmp_path / "ours")
