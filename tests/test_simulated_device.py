"""Captioning, explaining, scheduling, evaluation and the training step on a simulated device: equal to the CPU, nothing mixed."""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
import torch

from corpus import open_dataset
from evaluation import explain_images
from model import (
    Box,
    Captioner,
    CaptionRequest,
    Checkpoint,
    DevicePolicy,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    ModelConfig,
    ScoredRows,
    convert_source,
    load_checkpoint,
    prepare,
)
from model import maps as maps_package
from model.state import RowGroups
from service.runtime import Job, Scheduler, SchedulerLimits
from tests.simulated_device import simulated_device
from tests.test_convert import png, random_images, saved
from training import (
    Batch,
    FrozenPart,
    Totals,
    TrainConfig,
    TrainingData,
    TrainingObjective,
    WeightAverage,
    build_optimizer,
    caption_losses,
    clip_gradients,
    greedy_captions,
    predict,
    set_learning_rates,
)

MIXED_DEVICES = "expected all tensors on one device"
OPTIONS = [
    GenerationOptions(strategy="greedy", repetition_penalty=1.3, no_repeat_ngram_size=2),
    GenerationOptions(num_beams=3, num_return_sequences=2, prompt="a dog"),
    GenerationOptions(strategy="sample", num_return_sequences=2, top_k=9, top_p=0.9, min_p=0.01, seed=4),
    GenerationOptions(num_beams=2, min_words=3, max_words=5),
]


@pytest.fixture
def on_device(tiny_captioner):
    """A captioner of the same weights on the device, for the test that enters it."""
    checkpoint = Checkpoint(tiny_captioner.runtime, tiny_captioner.tokenizer, "")
    with simulated_device() as device:
        yield Captioner.from_checkpoint(checkpoint, DevicePolicy(device=device))


def assert_equal_results(results, expected):
    for result, other in zip(results, expected, strict=True):
        for caption, known in zip(result.captions, other.captions, strict=True):
            assert caption.text == known.text
            assert caption.log_probability == pytest.approx(known.log_probability, rel=1e-5, abs=1e-5)
            for word, known_word in zip(caption.words, known.words, strict=True):
                assert word.box == known_word.box
                assert word.image_reliance == pytest.approx(known_word.image_reliance, rel=1e-5, abs=1e-5)
                assert word.map.values.device.type == "cpu"
                torch.testing.assert_close(word.map.values, known_word.map.values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "beam", "sample", "words"])
def test_captions_on_the_device_are_the_cpus(tiny_captioner, on_device, views, options):
    assert on_device.runtime.device.type == "simulated"
    assert_equal_results(on_device.caption(views, options), tiny_captioner.caption(views, options))


def test_explanations_and_streams_on_the_device_are_the_cpus(tiny_captioner, on_device, views):
    texts = [["a brown dog runs", ""], ["two dogs"], ["a girl"]]
    assert_equal_results(on_device.explain(views, texts), tiny_captioner.explain(views, texts))
    streamed, expected = (list(captioner.stream(views[0]))[-1] for captioner in (on_device, tiny_captioner))
    assert_equal_results([streamed], [expected])


def test_requests_that_join_and_leave_on_the_device_get_the_cpus_captions(tiny_captioner, on_device, views):
    batch = on_device.batch()
    requests = [CaptionRequest(view=views[index % 3], options=options) for index, options in enumerate(OPTIONS)]
    batch.add([0, 1], requests[:2])
    batch.step()
    batch.add([2, 3], requests[2:])
    batch.step()
    batch.remove(1)
    batch.run()
    for key in (0, 2, 3):
        (expected,) = tiny_captioner.caption([requests[key].view], requests[key].options)
        assert_equal_results(batch.pop_results([key]), [expected])


def test_the_scheduler_runs_on_the_device(tiny_captioner, views, monkeypatch):
    """The model thread enters the device itself: the dispatch mode belongs to a thread."""
    original = Scheduler._run

    def run(self: Scheduler) -> None:
        with simulated_device():
            original(self)

    monkeypatch.setattr(Scheduler, "_run", run)
    with simulated_device() as device:
        checkpoint = Checkpoint(tiny_captioner.runtime, tiny_captioner.tokenizer, "")
        captioner = Captioner.from_checkpoint(checkpoint, DevicePolicy(device=device))
    scheduler = Scheduler(SchedulerLimits(max_rows=7, encode_batch_size=2))
    scheduler.start()
    try:
        jobs = [Job(captioner, CaptionRequest(view=views[n % 3], options=options), n) for n, options in enumerate(OPTIONS * 2)]
        scheduler.submit(*jobs)
        results = [job.future.result(60) for job in jobs]
    finally:
        scheduler.stop()
    for job, result in zip(jobs, results, strict=True):
        assert_equal_results([result], tiny_captioner.caption([job.request.view], job.request.options))
    assert not scheduler._thread.is_alive()


def test_evaluation_on_the_device_explains_as_on_the_cpu(tiny_captioner, on_device, photo):
    images, texts = [photo(seed=seed) for seed in range(3)], [["a brown dog"], ["two dogs"], ["a girl runs"]]
    for one, two in zip(explain_images(on_device, images, texts), explain_images(tiny_captioner, images, texts), strict=True):
        for word, known in zip(one.captions[0].words, two.captions[0].words, strict=True):
            torch.testing.assert_close(word.map.values, known.map.values, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def batch(tokenizer) -> Batch:
    entries = open_dataset("scenes:8").split("train")
    config = ModelConfig(image=ImageConfig(height=24, width=32), encoder=EncoderConfig(patch_size=8))
    data = TrainingData(entries, tokenizer, config, None, num_views=1, captions_per_image=2, max_caption_tokens=60)
    return data.batch([0, 3, 5], random.Random(0))


def training_step(network, batch: Batch) -> torch.Tensor:
    """The forward part of a training step, from the batch to the loss."""
    features = FrozenPart("none").features(network.encoder, batch.inputs)
    logits, targets, _ = predict(network, features, batch)
    return caption_losses(logits, targets, 0.1).mean()


def test_the_parts_of_a_training_step_give_the_cpus_numbers(tiny_captioner, batch, tokenizer):
    network = tiny_captioner.runtime
    expected = training_step(network, batch)
    entries = list(enumerate(open_dataset("scenes:6").split("val")[:4]))
    validation = greedy_captions(network, tokenizer, entries, None, FrozenPart("none"), torch.float32)
    with simulated_device() as device:
        moved = copy.deepcopy(network).to(device)
        loss = training_step(moved, batch.to(device))
        assert loss.device.type == "simulated"
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
        average = WeightAverage(moved.requires_grad_(), FrozenPart("none"))
        assert greedy_captions(moved, tokenizer, entries, None, FrozenPart("none"), torch.float32) == validation
        average.update(moved, 0.9, step=3)


@pytest.mark.parametrize("part", ["none", "encoder"])
def test_the_objective_and_the_update_of_a_step_give_the_cpus_numbers(tiny_captioner, batch, part):
    """The forward pass with its heads; clipping, AdamW and the average with the CPU's gradients: autograd is not simulated."""
    config = TrainConfig(data=("scenes",), run="x", lr=1e-3, word_presence_weight=0.0 if part == "encoder" else 0.1)
    frozen = FrozenPart(part)
    inputs = (tiny_captioner.runtime.encode(batch.inputs[0]).tokens.detach(),) if part == "encoder" else batch.inputs
    batch = dataclasses.replace(batch, inputs=inputs)
    totals = Totals(batch.num_targets, 1, batch.num_images)

    def objective_on(device: torch.device) -> TrainingObjective:
        network = copy.deepcopy(tiny_captioner.runtime).requires_grad_(True)
        if part == "encoder":
            network.encoder.requires_grad_(False)
        return TrainingObjective(network, config, frozen).to(device).train()

    def updated(objective: TrainingObjective) -> dict[str, torch.Tensor]:
        average, optimizer = WeightAverage(objective.network, frozen), build_optimizer(objective, config)
        set_learning_rates(optimizer, 0.5, 1.0)
        norms.append(clip_gradients(objective, 0.1))
        optimizer.step()
        average.update(objective.network, 0.5, 0)
        return {name: value.cpu() for name, value in average.checkpoint_weights().items()}

    norms: list[float] = []
    objective = objective_on(torch.device("cpu"))
    loss = objective(batch, totals)
    loss.backward()
    gradients = {name: value.grad.clone() for name, value in objective.named_parameters() if value.grad is not None}
    expected = updated(objective)
    with simulated_device() as device:
        moved = objective_on(device)
        assert moved(batch.to(device), totals).item() == pytest.approx(loss.item(), rel=1e-5)
        for name, value in moved.named_parameters():
            if name in gradients:
                value.grad = gradients[name].to(device)
        actual = updated(moved)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, atol=1e-6, rtol=0)


def test_a_cpu_tensor_in_the_decoder_is_an_error(on_device, views, monkeypatch):
    original = RowGroups.create.__func__

    def on_the_cpu(cls, image_of, num_images, device):
        return original(cls, image_of, num_images, torch.device("cpu"))

    def fold(self, tokens):
        return tokens + self.slot[:, None, None]

    monkeypatch.setattr(RowGroups, "create", classmethod(on_the_cpu))
    monkeypatch.setattr(RowGroups, "fold", fold)
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        on_device.caption(views)


def test_a_cpu_tensor_in_a_map_method_is_an_error(on_device, views, monkeypatch):
    class Misplaced:
        name, help, uses_gradients, is_attention_share = "misplaced", "", False, True

        def token_maps(self, scored: ScoredRows) -> torch.Tensor:
            return maps_package.MAP_METHODS["attention"].token_maps(scored) * torch.ones(scored.grid.num_patches)

    monkeypatch.setitem(maps_package.MAP_METHODS, "misplaced", Misplaced())
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        on_device.caption(views, maps="misplaced")


def test_a_cpu_tensor_in_the_training_step_is_an_error(tiny_captioner, batch):
    with simulated_device() as device:
        moved = copy.deepcopy(tiny_captioner.runtime).to(device)
        misplaced = Batch(batch.to(device).inputs, batch.tokens, batch.is_target, batch.image_of)
        with pytest.raises(RuntimeError, match=MIXED_DEVICES):
            training_step(moved, misplaced)


def test_prompts_and_regions_on_the_device_are_the_cpus(florence):
    """Requests with prompts of different lengths, a region, and phrases with coordinates."""
    captioner = florence[2]
    checkpoint = Checkpoint(captioner.runtime, captioner.tokenizer, "")
    view = prepare(png(next(random_images())), captioner.image_config)
    greedy = dataclasses.replace(captioner.config.generation, strategy="greedy", max_new_tokens=20)

    def results(of: Captioner, maps: str):
        options = [dataclasses.replace(greedy, task=task) for task in ("", "more_detailed_caption", "dense_region_caption")]
        requests = [CaptionRequest(view=view, options=option, maps=maps) for option in options]
        requests.append(CaptionRequest(view=view, options=greedy, region=Box(2, 3, 20, 25), maps=maps))
        batch = of.batch()
        batch.add(range(len(requests)), requests)
        batch.run()
        return batch.pop_results(range(len(requests)))

    with simulated_device() as device:
        on_device = Captioner.from_checkpoint(checkpoint, DevicePolicy(device=device))
        for maps in ("attention", "norm", "standardized"):
            assert_equal_results(results(on_device, maps), results(captioner, maps))


@pytest.mark.parametrize("family", ["beit_bert", "swin_roberta", "swinv2_xlm-roberta", "dinov2_mbart"])
def test_other_encoders_and_decoders_on_the_device_are_the_cpus(family, tmp_path):
    saved(family, tmp_path / "source")
    convert_source(tmp_path / "source", tmp_path / "ours")
    captioner = Captioner.load(tmp_path / "ours", dtype="float32")
    view = prepare(png(next(random_images())), captioner.image_config)
    with simulated_device() as device:
        on_device = Captioner.from_checkpoint(load_checkpoint(tmp_path / "ours"), DevicePolicy(device=device))
        assert_equal_results(on_device.caption([view]), captioner.caption([view]))
