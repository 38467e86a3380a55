"""Networks with a prompt encoder: prompts of different lengths, maps, configurations, LoRA, and files of dense captions."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import pytest
import torch
from timm.models.davit import ChannelAttentionV2

import train
from model import MAP_METHODS, CaptionRequest, ConfigError, GenerationOptions, ImageView, load_checkpoint
from model.__main__ import main
from model.answers import answers
from model.backbones import GroupedChannelAttention
from model.captions import Caption
from model.config import PromptEncoderConfig, TaskConfig
from model.geometry import Box
from model.pretrained.florence import TASKS
from model.scoring import ScoredCaption
from model.search import Hypothesis
from tests.florence import SIDE
from tests.networks import tiny_config
from tests.test_convert import png, random_images
from tests.test_florence import answer, view_of
from training import TrainConfig, add_lora
from training.lora import LoraLinear
from training.optimizer import lr_scale

TINY = tiny_config(300)


def test_states_of_prompts_of_different_lengths_give_the_logits_of_each_alone_in_float64(florence):
    """Joined, in another order, some removed: the keys that a shorter prompt lacks are never read."""
    network = load_checkpoint(florence[3] / "ours native").network.double()
    generator = torch.Generator().manual_seed(0)
    features = network.encode(torch.randn(3, 3, SIDE, SIDE, generator=generator, dtype=torch.float64))
    prompts = [(0, 20, 2), (0, 21, 22, 23, 24, 25, 2), (0, 30, 31, 2)]
    tokens = torch.randint(5, 300, (3, 5), generator=generator)
    with torch.no_grad():
        alone = [network.decode(tokens[[i]], network.start(features.select([i]), None, [prompts[i]]))[0][0] for i in range(3)]
        together = network.start(features, None, prompts)
        assert together.num_keys != (max(together.num_keys),) * 3
        _, weights, later = network.decode(tokens, together, weights=True)
        for row, state in ((together, [0, 1, 2]), (together.select([2, 0]), [2, 0]), (together.select([1, 1, 0]), [1, 1, 0])):
            others, _, _ = network.decode(tokens[state], row)
            for one, index in zip(others, state, strict=True):
                assert (one - alone[index]).abs().max() < 1e-12
        joined = later.select([0]).append(later.select([1, 2]))
        step = torch.full((3, 1), 7)
        assert (network.decode(step, joined)[0] - network.decode(step, later)[0]).abs().max() < 1e-12
    for layer in weights:
        assert (layer.sum(-1) - 1).abs().max() < 1e-12
        assert layer[0, :, :, 17 + 3 :].abs().max() == 0, "a prompt of three tokens has no fourth key"


@pytest.mark.parametrize("method", [name for name in MAP_METHODS if name != "occlusion"] + ["occlusion"])
def test_every_map_method_gives_the_same_maps_alone_and_with_longer_prompts(florence, method):
    captioner = florence[2]
    view = view_of(captioner, next(random_images()))
    options = [dataclasses.replace(captioner.config.generation, task=task, max_new_tokens=8, strategy="greedy", num_beams=1)
               for task in ("caption", "more_detailed_caption")]  # fmt: skip
    requests = [CaptionRequest(view=view, options=option, maps=method) for option in options]
    for request, result in zip(requests, answer(captioner, *requests), strict=True):
        (alone,) = answer(captioner, request)
        for one, other in zip(alone.captions[0].words, result.captions[0].words, strict=True):
            assert (one.map.values - other.map.values).abs().max() < 1e-3
            assert float(one.map.values.sum()) == pytest.approx(1, abs=1e-6)
            assert (one.map.prompt_mass is None) == (method not in ("attention", "mean"))


def test_channel_attention_does_not_overflow_in_float16():
    """At 768 x 768 pixels the first stage has 36,864 tokens: a sum over all of them, before it is scaled, is no float16."""
    attention = GroupedChannelAttention(8, num_heads=2).requires_grad_(False)
    tokens = torch.randn(1, 36_864, 8, generator=torch.Generator().manual_seed(0))
    attention.qkv.weight.copy_(2 * torch.cat([torch.eye(8)] * 3))
    expected = attention(tokens)
    half = attention.half()(tokens.half()).float()
    assert half.isfinite().all()
    assert (half - expected).abs().max() < 0.02
    timms = ChannelAttentionV2(8, num_heads=2)
    timms.load_state_dict(attention.state_dict())
    assert (timms(tokens) - expected).abs().max() < 0.02


def test_a_prompt_is_the_beginning_of_the_first_phrase_alone():
    config = PromptEncoderConfig(num_heads=2, first_location_id=100, num_locations=10)
    tasks = (TaskConfig(name="dense", prompt="Locate.", output="boxes"),)
    decoder = dataclasses.replace(TINY.decoder, encoder_hidden_size=16, null_key=False)
    encoder = dataclasses.replace(TINY.encoder, hidden_size=16)
    model = dataclasses.replace(TINY, prompt_encoder=config, tasks=tasks, decoder=decoder, encoder=encoder)
    view = ImageView(torch.zeros(3, 24, 32), (100, 100), Box(0, 0, 100, 100), "PNG", 1)
    request = CaptionRequest(view=view, options=GenerationOptions(prompt="a cat"))
    tokens = (5, 6, 100, 101, 102, 103, 7, 8, 104, 105, 106, 107)
    texts = []

    def build(hypothesis, scored, *, verbatim_text="a cat"):
        texts.append((hypothesis.tokens, verbatim_text))
        return Caption(f" {verbatim_text} ", (), 0.0, "stop")

    scored = ScoredCaption((-1.0,) * 12, (), None)
    special = SimpleNamespace(special_ids=frozenset(range(100, 110)))
    captions = answers(model, special, request, Hypothesis(tokens, 0.0, True), scored, build)
    assert texts == [((5, 6), "a cat"), ((7, 8), "")]
    assert [caption.log_probability for caption in captions] == [-6.0, -6.0], "two tokens and four coordinates"
    assert captions[0].text == "a cat"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "a prompt_encoder of 5 heads"),
        ({"default_ids": (10**6,)}, "ids of the prompt_encoder must be in 0.."),
        ({"eos_token_id": -3}, "prompt encoder eos_token_id is -3"),
        ({"num_locations": 0}, "num_locations is 0; tasks with regions need tokens"),
        ({"first_location_id": 10**6}, "ids of the prompt_encoder must be in 0.."),
    ],
)
def test_a_prompt_encoder_that_cannot_work_is_an_error_of_its_config(florence, changes, message):
    config = florence[2].config
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, prompt_encoder=dataclasses.replace(config.prompt_encoder, **changes))


def test_tasks_of_one_name_or_without_a_default_are_errors(florence):
    config = florence[2].config
    for tasks in ((TASKS[0], TASKS[0]), TASKS[6:], ()):
        with pytest.raises(ConfigError, match="tasks"):
            dataclasses.replace(config, tasks=tasks)
    with pytest.raises(ConfigError, match="task is 'nope'"):
        dataclasses.replace(config, generation=GenerationOptions(task="nope"))
    with pytest.raises(ConfigError, match="null_key must be false"):
        dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, null_key=True))


def test_every_part_of_a_florence_gets_lora_and_its_blocks_the_rates_of_their_depth(florence):
    network = load_checkpoint(florence[3] / "ours native").network
    encoder, config = network.config.encoder, TrainConfig(data=("scenes",), run="x", layer_decay=0.5)
    names = [name for name, _ in network.named_parameters() if name.startswith("encoder.backbone.stages.1")]
    rates = {".".join(name.split(".")[4:6]): lr_scale(name, encoder, config)[0] for name in names}
    assert rates["blocks.1"] == 2 * rates["blocks.0"] == 4 * next(rate for name, rate in rates.items() if "downsample" in name)
    add_lora(network, 2, 4.0, None)
    for part in ("encoder", "prompt_encoder", "decoder"):
        assert any(isinstance(module, LoraLinear) for module in network.get_submodule(part).modules()), part


def test_a_dense_caption_has_its_phrases_and_regions_in_every_output(florence, tmp_path):
    (tmp_path / "image.png").write_bytes(png(next(random_images())))
    arguments = [str(tmp_path / "image.png"), "--checkpoint", str(florence[3] / "ours native"), "--task", "dense_region_caption"]
    arguments += ["--strategy", "greedy", "--max-new-tokens", "60", "--dtype", "float32"]
    assert main(["caption", *arguments, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert main(["caption", *arguments, "--output", str(tmp_path / "out.csv")]) == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert len(record["captions"]) == len(record["regions"]) >= 2
    assert all(len(region) == 4 for region in record["regions"])
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    assert row["caption"] == "; ".join(record["captions"])


def test_a_converted_florence_is_trained_further_and_keeps_its_tasks(florence, tmp_path):
    arguments = ["--data", "scenes:24", "--run", str(tmp_path / "run"), "--init", str(florence[3] / "ours native")]
    assert train.main([*arguments, "--max-steps", "2", "--batch-size", "4", "--freeze", "encoder", "--dtype", "float32"]) == 0
    before, after = (load_checkpoint(folder) for folder in (florence[3] / "ours native", tmp_path / "run/last"))
    assert after.config.tasks == before.config.tasks
    assert after.config.prompt_encoder == before.config.prompt_encoder
    for part in ("prompt_encoder", "decoder"):
        pairs = zip(before.network.get_submodule(part).parameters(), after.network.get_submodule(part).parameters(), strict=True)
        assert any(not torch.equal(one.half(), other.half()) for one, other in pairs), f"{part} is trained"
    frozen = zip(before.network.encoder.parameters(), after.network.encoder.parameters(), strict=True)
    assert all(torch.equal(one.half(), other.half()) for one, other in frozen), "runs save float16"
