"""The parts of a training recipe, each by what it changes: learning rates, stages, augmentation, losses, LoRA, presets."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import train
from model import CaptionNetwork, ConfigError, EncoderConfig, linear_children, load_checkpoint, save_checkpoint
from tests.networks import redraw, tiny_config
from tests.runs import lines_of, source_of
from training import (
    PRESETS,
    Batch,
    FrozenPart,
    LoadedStep,
    Ranks,
    Totals,
    TrainConfig,
    TrainingObjective,
    add_lora,
    build_optimizer,
    caption_losses,
    count_steps,
    encoder_factor,
    first_encoder_step,
    load_state,
    merged_weights,
    parse_arguments,
    presets_table,
    resolve_length,
    set_learning_rates,
    stage_part,
    with_preset,
)
from training.lora import LoraLinear
from training.loss import WordPresence, distillation_losses, without_worst
from training.optimizer import lr_scale


def config_of(**values: object) -> TrainConfig:
    return TrainConfig(data=("scenes",), run="x", **values)  # type: ignore[arg-type]


# Learning rates and stages


def test_every_layer_of_the_encoder_has_the_rate_of_the_next_one_times_the_decay(tokenizer):
    config = config_of(encoder_lr_multiplier=0.1, layer_decay=0.5)
    names = ["encoder.vit.pos_embed", "encoder.vit.patch_embed.proj.weight", "encoder.vit.blocks.0.mlp.fc1.weight",
             "encoder.vit.blocks.1.attn.qkv.bias", "encoder.vit.norm.weight", "decoder.norm.weight"]  # fmt: skip
    scales = [lr_scale(name, EncoderConfig(num_layers=2), config)[0] for name in names]
    assert scales == pytest.approx([0.0125, 0.0125, 0.025, 0.05, 0.1, 1.0])

    network = CaptionNetwork(tiny_config(tokenizer.size, num_layers=2))
    optimizer = build_optimizer(TrainingObjective(network, config, FrozenPart("none")), config)
    set_learning_rates(optimizer, 0.5, 0.1)
    rates = {value: group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert len(rates) == len(list(network.parameters())), "every weight once"
    assert rates[network.decoder.norm.weight] == pytest.approx(0.5 * config.peak_lr)
    assert rates[network.encoder.vit.blocks[1].attn.qkv.bias] == pytest.approx(0.5 * 0.1 * 0.05 * config.peak_lr)
    decays = {value: group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert decays[network.encoder.vit.blocks[1].attn.qkv.bias] == 0 < decays[network.encoder.vit.blocks[1].attn.qkv.weight]


def test_stages_are_text_then_a_frozen_encoder_then_everything():
    source = source_of(40)  # 10 batches; 40 captions are 5 batches of 2 captions for each of 4 images
    config = config_of(text_epochs=1, frozen_epochs=2, epochs=6, batch_size=4, captions_per_image=2, warmup_ratio=0.2)
    assert count_steps(config, [source]) == 5 + 5 * 10
    assert count_steps(dataclasses.replace(config, max_steps=8), [source]) == 8
    kinds = [stage_part(config, FrozenPart("none"), epoch).kind for epoch in range(5)]
    assert kinds == ["encoder", "encoder", "encoder", "none", "none"]
    factors = [encoder_factor(config, 25, step, 55) for step in (0, 24, 25, 30, 35, 36, 54)]
    assert factors == pytest.approx([0, 0, 1 / 11, 6 / 11, 1, 1, 1])
    assert encoder_factor(config_of(), 0, 0, 55) == 1
    assert first_encoder_step(config, [source]) == 25
    automatic = resolve_length(config_of(text_epochs=3, max_steps=30, batch_size=4), [source])
    assert automatic.epochs == 3 + 3


def test_a_run_goes_through_its_stages_and_resumes_within_one(quick_run, tmp_path):
    stages = ["--text-epochs", "1", "--frozen-epochs", "1", "--freeze", "none", "--epochs", "3", "--sample-images", "0"]
    arguments = [*quick_run, *stages, "--val-share", "0", "--captions-per-image", "1"]  # 3 steps of each stage
    weight, runs = "encoder.vit.blocks.0.mlp.fc1.weight", {}
    for steps in (9, 6, 7):
        runs[steps] = tmp_path / str(steps)
        assert train.main([*arguments, "--run", str(runs[steps]), "--max-steps", str(steps)]) == 0
        optimizer = load_state(runs[steps]).parts["optimizer"]
        assert (f"network.{weight}" in optimizer) is (steps > 6), "the encoder is frozen in the first two stages"
    assert (runs[9] / "features").exists(), "the frozen encoder's features are cached"
    rates = [row["encoder_lr"] for row in lines_of(runs[9]) if "loss" in row]
    assert rates[:6] == [0] * 6
    assert min(rates[6:]) > 0
    for steps in (6, 7):
        before = load_state(runs[steps]).parts["network"][weight]
        assert train.main(["--run", str(runs[steps]), "--resume", "--epochs", "3"]) == 0
        after = load_state(runs[steps]).parts["network"][weight]
        assert (after - before).abs().max() > 0


def test_patience_ends_a_run_that_gets_no_better(quick_run, tmp_path, capsys):
    flags = ["--lr", "0", "--epochs", "9", "--eval-epochs", "1", "--patience", "2", "--sample-images", "0"]
    assert train.main([*quick_run, *flags]) == 0
    assert "no better CIDEr in 2 validations: the run ends here (--patience 2)" in capsys.readouterr().out
    state = load_state(tmp_path / "run")
    assert state.progress.is_finished
    assert state.progress.epoch == 2
    assert train.main(["--run", str(tmp_path / "run"), "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out


# Losses


def objective_of(network: CaptionNetwork, **values: object) -> TrainingObjective:
    return TrainingObjective(network, config_of(label_smoothing=0.0, **values), FrozenPart("none"))


@pytest.fixture
def batch(tokenizer, pixels) -> Batch:
    tokens = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 8, 9, 2], [1, 9, 2, 0, 0]])
    return Batch((pixels[:2],), tokens, tokens[:, 1:] != 0, (0, 0, 1))


def test_the_worst_captions_are_left_out_and_the_mean_stays_one_of_the_others(tiny_network, batch):
    losses = torch.tensor([1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 2.0, 2.0], dtype=torch.float64)
    kept = without_worst(losses, batch.is_target, 0.34)
    assert kept[3:7].abs().sum() == 0
    assert kept.mean().item() == pytest.approx(7 / 5), "the mean over the five targets that are left"
    assert torch.equal(without_worst(losses, batch.is_target, 0.3), losses), "no whole caption"

    network = copy.deepcopy(tiny_network).requires_grad_(True)
    objective, totals = objective_of(network, drop_worst_ratio=0.34), Totals(9, 1, 2)
    late, early = objective(batch, totals, drops_worst=True), objective(batch, totals)
    assert late.item() < early.item()


def test_word_presence_knows_the_words_of_an_images_captions(tiny_network, batch):
    head = WordPresence(24, 320, 1).double()
    tokens = tiny_network.encode(batch.inputs[0]).tokens
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(80):
        loss = head(tokens, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = head.head(head.norm(tokens[:, 1:].mean(1)))
    assert set((logits[0] > 0).nonzero()[:, 0].tolist()) == {2, 5, 6, 7, 8, 9}, "of both captions of the first image"
    assert set((logits[1] > 0).nonzero()[:, 0].tolist()) == {2, 9}
    assert head(tokens, batch.without_targets()).item() == 0


def test_word_presence_trains_the_encoder_and_its_head_is_kept_in_the_state(quick_run, tmp_path):
    arguments = [*quick_run, "--freeze", "none", "--word-presence-weight", "0.1", "--max-steps", "2", "--sample-images", "0"]
    assert train.main(arguments) == 0
    state = load_state(tmp_path / "run")
    assert state.parts["heads"]["head.weight"].abs().max() > 0
    assert not any("word_presence" in name for name in load_checkpoint(tmp_path / "run/last").network.state_dict())
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--max-steps", "3"]) == 0


def test_a_teacher_that_is_the_network_adds_no_divergence(tiny_network, batch):
    logits = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert distillation_losses(logits, logits).abs().max() < 1e-6
    other = logits.roll(1, dims=1)
    expected = (other.softmax(-1) * (other.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(distillation_losses(logits, other).double(), expected, atol=1e-5, rtol=0)


def test_a_run_learns_from_a_teacher_with_the_same_tokens(quick_run, quick_start, tmp_path, tokenizer, capsys):
    teacher = tmp_path / "teacher"
    checkpoint = load_checkpoint(quick_start)
    redraw(checkpoint.network, 8)
    save_checkpoint(teacher, checkpoint.config, checkpoint.network.state_dict(), tokenizer, "# Teacher")
    losses = {}
    for weight in ("0", "1"):
        run = tmp_path / f"run{weight}"
        flags = ["--teacher", str(teacher), "--teacher-weight", weight, "--epochs", "14", "--lr", "3e-3", "--sample-images", "0"]
        assert train.main([*quick_run, "--run", str(run), *flags, "--freeze", "none", "--label-smoothing", "0"]) == 0
        losses[weight] = [row["loss"] for row in lines_of(run) if "loss" in row]
    assert losses["1"][-1] < 0.7 * losses["1"][0], "the divergence from the teacher falls"
    assert losses["0"][0] != losses["1"][0]
    other = ["--teacher", "model/default", "--run", str(tmp_path / "other")]
    assert train.main([*quick_run, *other]) == 1
    assert "has another tokenizer than the network" in capsys.readouterr().err


def test_parts_of_any_size_make_up_the_same_loss(tiny_network, batch):
    objective = objective_of(copy.deepcopy(tiny_network).requires_grad_(True).eval())
    loaded = LoadedStep(2, (batch,))
    whole = objective(batch, Totals.of(loaded, Ranks()))
    logits = tiny_network.decode(batch.tokens[:, :-1], tiny_network.start(tiny_network.encode(batch.inputs[0]), batch.image_of),
                                 logits_mask=batch.is_target)[0]  # fmt: skip
    expected = caption_losses(logits, batch.tokens[:, 1:][batch.is_target], 0.0).mean()
    torch.testing.assert_close(whole, expected.to(whole.dtype), atol=1e-6, rtol=0)
    rows = [[0, 1], [2]]
    parts = [
        Batch((batch.inputs[0][n : n + 1],), batch.tokens[own], batch.is_target[own], (0,) * len(own))
        for n, own in enumerate(rows)
    ]
    totals = Totals.of(LoadedStep(2, tuple(parts)), Ranks())
    torch.testing.assert_close(sum(objective(part, totals) for part in parts), whole, atol=1e-6, rtol=0)
    assert objective(batch.without_targets(), totals).item() == 0


def test_word_presence_without_an_encoder_to_train_is_refused(quick_run, capsys):
    assert train.main([*quick_run, "--word-presence-weight", "0.1"]) == 1, "--freeze auto freezes the encoder of --init"
    assert "the whole encoder is frozen; use --freeze none" in capsys.readouterr().err


# LoRA


def test_lora_keeps_the_statistics_of_batch_norms(tokenizer):
    network = CaptionNetwork(tiny_config(tokenizer.size, stem="resnet10t", stem_strides=(8,)))
    add_lora(network, 2, 4.0, None)
    before = {name: value.clone() for name, value in network.named_buffers()}
    objective = TrainingObjective(network, config_of(init="x", lora_rank=2), FrozenPart("none")).train()
    network.encode(torch.randn(4, 3, 24, 32))
    assert objective.network.decoder.training
    assert before
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_lora_starts_as_the_network_and_its_merged_weights_give_its_output(tiny_network, pixels):
    network = copy.deepcopy(tiny_network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    add_lora(network, 4, 8.0, None)
    tokens = torch.tensor([[1, 5, 6], [1, 7, 8], [1, 9, 9]])

    def output(of: CaptionNetwork) -> torch.Tensor:
        return of.decode(tokens, of.start(of.encode(pixels)))[0]

    assert torch.equal(output(network), output(tiny_network))
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert all("lora_" in name or name == "no_image" for name in trained)
    assert sum(isinstance(module, LoraLinear) for module in network.modules()) == 4 + 2 * 10
    redraw(network, 5, scale=0.2)
    for name, value in before.items():
        network.state_dict()[name].copy_(value)  # only the update is other
    merged = copy.deepcopy(tiny_network)
    merged.load_state_dict(merged_weights(network))
    assert (output(network) - output(tiny_network)).abs().max() > 0.01
    torch.testing.assert_close(output(merged), output(network), atol=1e-12, rtol=0)


def test_a_frozen_encoder_gets_no_lora(tiny_network):
    network = copy.deepcopy(tiny_network)
    add_lora(network, 2, 4.0, network.encoder)
    assert not any(isinstance(module, LoraLinear) for module in network.encoder.modules())
    assert any(isinstance(module, LoraLinear) for module in network.decoder.modules())


def test_a_run_with_lora_keeps_little_state_and_saves_a_plain_checkpoint(quick_run, quick_start, tmp_path):
    arguments = [*quick_run, "--preset", "finetune", "--save-steps", "2"]
    assert train.main([*arguments, "--max-steps", "3"]) == 0
    state = load_state(tmp_path / "run")
    assert {name.rpartition(".")[2] for name in state.parts["network"]} == {"lora_a", "lora_b", "no_image"}
    trained = load_checkpoint(tmp_path / "run/last").network.state_dict()
    start = load_checkpoint(quick_start).network.state_dict()
    assert trained.keys() == start.keys()
    assert torch.equal(trained["decoder.token_embedding.weight"], start["decoder.token_embedding.weight"].half().float())
    assert not torch.equal(trained["decoder.layers.0.mlp.0.weight"], start["decoder.layers.0.mlp.0.weight"].half().float())
    assert train.main(["--run", str(tmp_path / "run"), "--resume", "--max-steps", "6"]) == 0
    other = tmp_path / "other"
    assert train.main([*arguments, "--run", str(other), "--max-steps", "6"]) == 0
    one, two = (load_state(run).parts["network"] for run in (tmp_path / "run", other))
    assert one.keys() == two.keys()


# Presets and what excludes what


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "none"])
def test_every_preset_is_a_valid_run_that_flags_may_change(preset):
    init = ["--init", "x"] if preset == "finetune" else []
    config = parse_arguments(["--run", "y", "--data", "scenes", "--preset", preset, *init])
    for name, value in PRESETS[preset].items():
        assert getattr(config, name) == value
    changed = parse_arguments(["--run", "y", "--data", "scenes", "--preset", preset, *init, "--lr", "0.5"])
    assert changed == dataclasses.replace(config, lr=0.5)
    assert f"| `{preset}` |" in presets_table()
    assert with_preset({"preset": "coco", "init": "x"}).get("encoder") is None, "a checkpoint has its own network"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"min_crop_area": 0.5}, "need --freeze none"),
        ({"rand_augment": 2, "freeze": "none", "region_weight": 0.1}, "they know the image as it is"),
        ({"lora_rank": 4}, "needs --init"),
        ({"lora_rank": 4, "init": "x", "frozen_epochs": 2}, "cannot be used together"),
        ({"word_presence_weight": 1.0, "freeze": "encoder"}, "leave one of them out"),
        ({"drop_worst_ratio": 1.0}, "must be below 1"),
        ({"fsdp": True, "self_critical_weight": 0.5}, "leave --fsdp out"),
    ],
)
def test_parts_of_a_recipe_that_exclude_each_other_are_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        config_of(**flags)


def test_layers_whose_weight_timm_reads_itself_are_not_replaced_by_lora():
    """BEiT's fused projection is not called as a layer: one with LoRA would stand there without an effect."""
    import timm

    block = timm.create_model("beit_base_patch16_224", pretrained=False, depth=1, embed_dim=16, num_heads=2).blocks[0]
    assert [name for name, _ in linear_children(block.attn)] == ["proj"]
    assert [name for name, _ in linear_children(block.mlp)] == ["fc1", "fc2"]
