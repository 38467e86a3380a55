"""Florence-2: both layouts, tasks, coordinates and regions equal the peer's own processor and `generate`, and its maps."""

from __future__ import annotations

import dataclasses
import json
import random
from types import SimpleNamespace

import pytest
import torch
from timm.models.davit import ChannelAttentionV2

from model import (
    MAP_METHODS,
    Captioner,
    CaptionRequest,
    CheckpointError,
    ConfigError,
    GenerationOptions,
    ImageView,
    TextError,
    load_checkpoint,
    prepare,
)
from model.answers import answers
from model.backbones import GroupedChannelAttention
from model.captions import Caption
from model.config import PromptEncoderConfig, TaskConfig
from model.geometry import Box
from model.located import located_phrases
from model.pretrained import convert_source
from model.pretrained.florence import TASKS
from model.prompts import prompt_ids
from model.scoring import ScoredCaption
from model.search import Hypothesis
from tests.florence import SIDE, save_microsofts, save_native, tiny_florence
from tests.networks import tiny_config
from tests.test_convert import png, random_images
from training import TrainConfig, add_lora
from training.lora import LoraLinear
from training.optimizer import lr_scale

WITH_REGION = {
    "region_caption": "<REGION_TO_DESCRIPTION>",
    "region_category": "<REGION_TO_CATEGORY>",
    "region_ocr": "<REGION_TO_OCR>",
}
PEERS = {
    "caption": "<CAPTION>", "detailed_caption": "<DETAILED_CAPTION>", "more_detailed_caption": "<MORE_DETAILED_CAPTION>",
    "dense_region_caption": "<DENSE_REGION_CAPTION>", "object_detection": "<OD>", "region_proposal": "<REGION_PROPOSAL>",
    "phrase_grounding": "<CAPTION_TO_PHRASE_GROUNDING>", "open_vocabulary_detection": "<OPEN_VOCABULARY_DETECTION>",
    "ocr": "<OCR>", "ocr_with_region": "<OCR_WITH_REGION>", **WITH_REGION,
}  # fmt: skip
TEXT = "a dog and a ball"
TINY = tiny_config(300)
GREEDY = {"strategy": "greedy", "max_new_tokens": 40, "no_repeat_ngram_size": 3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A peer, its processor, and the captioner of its folder in the layout of transformers, in float32."""
    folder = tmp_path_factory.mktemp("florence")
    peer, processor = tiny_florence()
    save_native(folder / "native", peer, processor)
    save_microsofts(folder / "microsofts", peer, processor)
    for layout in ("native", "microsofts"):
        convert_source(folder / layout, folder / f"ours {layout}")
    return peer, processor, Captioner.load(folder / "ours native", dtype="float32"), folder


def view_of(captioner, image):
    return prepare(png(image), captioner.image_config)


def requested(captioner, image, task="", region=None, **options):
    text = TEXT if task in ("phrase_grounding", "open_vocabulary_detection") else ""
    generation = dataclasses.replace(captioner.config.generation, task=task, task_input=text, **options)
    return CaptionRequest(view=view_of(captioner, image), options=generation, region=region)


def answer(captioner, *requests):
    batch = captioner.batch()
    batch.add(list(range(len(requests))), requests)
    batch.run()
    return batch.pop_results(list(range(len(requests))))


def region_text(box, size):
    """Return a region as the peer's prompts have it: the processor expects its tokens in the text."""
    width, height = size
    bins = [int(edge / (side / 1000)) for edge, side in zip(box, (width, height, width, height), strict=True)]
    return "".join(f"<loc_{min(max(index, 0), 999)}>" for index in bins)


def inputs_of(processor, image, task, region=None):
    more = TEXT if task in ("phrase_grounding", "open_vocabulary_detection") else ""
    if region is not None:
        more = region_text((region.x0, region.y0, region.x1, region.y1), image.size)
    return processor(text=PEERS[task] + more, images=image, return_tensors="pt")


def test_both_layouts_give_the_same_checkpoint(tiny):
    one, other = (load_checkpoint(tiny[3] / f"ours {layout}") for layout in ("native", "microsofts"))
    assert one.tokenizer.size == other.tokenizer.size + 1, "transformers' has a token <image>"
    first, second = (dataclasses.asdict(checkpoint.config.decoder) for checkpoint in (one, other))
    assert {name for name in first if first[name] != second[name]} == {"vocab_size"}
    assert dataclasses.replace(one.config, decoder=other.config.decoder, created=0) == dataclasses.replace(
        other.config, created=0
    )
    for name, value in other.network.state_dict().items():
        assert torch.equal(one.network.state_dict()[name][: len(value)], value), name


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_the_prompt_of_every_task_has_the_ids_of_the_peers_processor(tiny, task):
    _, processor, captioner, _ = tiny
    for image in random_images():
        region = Box(3, 5, 20.7, 28) if task in WITH_REGION else None
        ids = prompt_ids(captioner.config, captioner.tokenizer, requested(captioner, image, task, region), 17)
        theirs = inputs_of(processor, image, task, region)["input_ids"][0].tolist()
        assert list(ids) == theirs[1 + (SIDE // 8) ** 2 :]


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_every_task_gives_the_peers_answer(tiny, task):
    """Texts equal the peer's; where coordinates are expected, the phrases and regions are those of the peer's tokens."""
    peer, processor, captioner, _ = tiny
    kind, num_located = next(one.output for one in TASKS if one.name == task), 0
    for number, image in enumerate(random_images()):
        region = Box(2, 3 + number, 21, 29) if task in WITH_REGION else None
        (result,) = answer(captioner, requested(captioner, image, task, region, **GREEDY))
        inputs = inputs_of(processor, image, task, region)
        ids = peer.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=40, no_repeat_ngram_size=3)
        if kind == "text":
            expected = processor.batch_decode(ids, skip_special_tokens=True)[0]
            assert result.captions[0].text == expected.replace("\N{REPLACEMENT CHARACTER}", "")
            assert result.captions[0].region == region
            continue
        config = captioner.config.prompt_encoder
        phrases = located_phrases(ids[0, 2:].tolist(), captioner.tokenizer.special_ids, config, kind, image.size)
        assert [(c.region, c.polygon) for c in result.captions] == [(phrase.region, phrase.polygon) for phrase in phrases]
        texts = [captioner.tokenizer.decode(ids[0, 2:].tolist()[phrase.start : phrase.end]) for phrase in phrases]
        assert [caption.text for caption in result.captions] == [text.strip() for text in texts]
        num_located += len(phrases)
        for caption in result.captions:
            assert all(caption.text[word.start : word.end] == word.text for word in caption.words)
            assert caption.log_probability < 0
    assert kind == "text" or num_located, "nothing located tests nothing"


@pytest.mark.parametrize("task", ["dense_region_caption", "phrase_grounding", "region_proposal", "ocr_with_region"])
def test_phrases_and_coordinates_equal_those_of_the_peers_own_parser(tiny, task):
    """Answers as the network was trained to write them; what another order of tokens means, the peer's expressions do not say."""
    _, processor, captioner, _ = tiny
    kind = next(one.output for one in TASKS if one.name == task)
    tokenizer, config, rng = captioner.tokenizer, captioner.config.prompt_encoder, random.Random(task)
    for _ in range(100):
        ids = []
        for _ in range(rng.randint(0, 5)):
            if kind != "proposals":
                ids += tokenizer.encode(rng.choice(["", " "]) + " ".join(rng.sample(TEXT.split(), 3)))
            corners = 1 if kind == "quads" else rng.choice([1, 1, 2, 3])
            ids += [config.first_location_id + rng.randrange(1000) for _ in range(corners * (8 if kind == "quads" else 4))]
            if kind == "proposals":
                break  # they are one run of coordinates
        size = (rng.randint(1, 4000), rng.randint(1, 4000))
        raw = processor.batch_decode([[0, *ids, 2]], skip_special_tokens=False)[0]
        parsed = processor.post_process_generation(raw, task=PEERS[task], image_size=size)[PEERS[task]]
        phrases = located_phrases(ids, tokenizer.special_ids, config, kind, size)
        assert [tokenizer.decode(ids[phrase.start : phrase.end]).strip() for phrase in phrases] == parsed["labels"]
        if kind == "quads":
            pairs = zip([phrase.polygon for phrase in phrases], parsed["quad_boxes"], strict=True)
        else:
            boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in parsed["bboxes"]]
            pairs = zip([dataclasses.astuple(phrase.region) for phrase in phrases], boxes, strict=True)
        for ours, theirs in pairs:
            for axis, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                # The peer computes in float32: a coordinate that is a whole number of pixels may be one less there.
                assert one == other or (one == other + 1 and one * 2000 % size[axis % 2] == 0)


def test_coordinates_become_pixels_of_the_middle_of_their_bin():
    config = PromptEncoderConfig(first_location_id=100, num_locations=1000)
    special = frozenset(range(100, 1100)) | {0, 2}
    tokens = [5, 6, 100, 350, 600, 1099, 7, 101, 102, 103, 104, 200, 201, 202, 203, 9, 9, 100, 0, 8, 100, 101, 102]
    phrases = located_phrases(tokens, special, config, "boxes", (2000, 500))
    assert [(phrase.start, phrase.end) for phrase in phrases] == [(0, 2), (6, 7), (6, 7)], "one of 3 or 1 coordinates has no box"
    assert phrases[0].region == Box(1, 125, 1001, 499)
    corners = located_phrases([5, *range(100, 108), 6], special, config, "quads", (1000, 1000))
    assert corners[0].polygon == (0, 1, 2, 3, 4, 5, 6, 7)
    assert corners[0].region == Box(0, 1, 6, 7)
    assert not located_phrases([100, 101, 102, 103], special, config, "boxes", (10, 10)), "there is no phrase"
    assert len(located_phrases([100, 101, 102, 103], special, config, "proposals", (10, 10))) == 1


def test_prompts_of_different_lengths_step_together_and_share_an_image(tiny):
    """A batch of tasks and regions, of one image and another, gives what each gives alone."""
    captioner = tiny[2]
    images = list(random_images())[:2]
    views = [view_of(captioner, image) for image in images]
    options = [dataclasses.replace(captioner.config.generation, task=task, max_new_tokens=24)
               for task in ("caption", "more_detailed_caption", "ocr")]  # fmt: skip
    requests = [CaptionRequest(view=view, options=option) for view in views for option in options]
    requests += [CaptionRequest(view=views[0], options=options[0].__class__(max_new_tokens=12), region=Box(x, 1, x + 9, 20))
                 for x in (0, 8, 20)]  # fmt: skip
    encoded = []
    network, encode = captioner.runtime, captioner.runtime.encode
    network.encode = lambda pixels: encoded.append(len(pixels)) or encode(pixels)
    try:
        together = answer(captioner, *requests)
        assert encoded == [2], "an image that several requests share is encoded once"
    finally:
        del network.encode
    for request, result in zip(requests, together, strict=True):
        (alone,) = answer(captioner, request)
        assert [caption.text for caption in alone.captions] == [caption.text for caption in result.captions]
        for one, other in zip(alone.captions, result.captions, strict=True):
            assert one.region == other.region == request.region
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
            for word, same in zip(one.words, other.words, strict=True):
                assert (word.map.values - same.map.values).abs().max() < 1e-4
                assert word.image_reliance == pytest.approx(same.image_reliance, abs=1e-4)
                assert word.map.prompt_mass == pytest.approx(same.map.prompt_mass, abs=1e-4)


def test_shares_of_image_and_prompt_are_those_of_the_peers_attention(tiny):
    peer, processor, captioner, _ = tiny
    peer.model.language_model.set_attn_implementation("eager")
    image = next(random_images())
    (result,) = captioner.explain([view_of(captioner, image)], [[TEXT]])
    decoder = captioner.config.decoder
    ids = captioner.tokenizer.encode(TEXT)
    tokens = torch.tensor([[decoder.bos_token_id, 0, *ids]])
    with torch.no_grad():
        output = peer(**inputs_of(processor, image, "caption"), decoder_input_ids=tokens, output_attentions=True)
    rows = torch.stack(output.cross_attentions).mean(dim=(0, 2))[0, 1:]  # (T, S)
    log_probs = output.logits.log_softmax(-1)[0, 1:]
    patches = 1 + (SIDE // 8) ** 2
    for word, span in zip(result.captions[0].words, captioner.tokenizer.words(ids), strict=True):
        mean = rows[list(span.tokens)].mean(0)
        assert word.map.image_mass == pytest.approx(float(mean[1:patches].sum()), abs=1e-5)
        assert word.map.prompt_mass == pytest.approx(float(mean[patches:].sum()), abs=1e-5)
        assert (word.map.values - mean[1:patches] / mean[1:patches].sum()).abs().max() < 1e-5
        expected = sum(float(log_probs[at, ids[at]]) for at in span.tokens)
        assert word.log_probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "region", "message"),
    [
        ({"task": "segmentation"}, None, "task is 'segmentation'; this checkpoint has caption, detailed_caption"),
        ({"task": "region_caption"}, None, "task is 'region_caption', which describes a part of the image; send regions"),
        ({"task": "caption"}, Box(0, 0, 5, 5), "task is 'caption', which describes the whole image; leave the regions"),
        ({"task": "phrase_grounding"}, None, "task_input is empty; task 'phrase_grounding' needs the text"),
        ({"task": "ocr", "task_input": "x"}, None, "task_input is 'x', but task 'ocr' needs none"),
        ({"task": "phrase_grounding", "task_input": "a dog " * 300}, None, "task_input makes a prompt of"),
    ],
)
def test_a_task_that_cannot_be_done_is_an_error_and_nothing_is_added(tiny, values, region, message):
    captioner = tiny[2]
    view = view_of(captioner, next(random_images()))
    batch = captioner.batch()
    with pytest.raises((ConfigError, TextError), match=message):
        batch.add([0], [CaptionRequest(view=view, options=GenerationOptions(**values), region=region)])
    assert not batch.keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["vision_config"].update(model_type="clip_vision_model"), "the vision tower is 'clip_vision_model'"),
        (lambda c: c["text_config"].update(model_type="t5"), "the language model is 't5'; Florence-2 has 'bart'"),
        (lambda c: c["vision_config"].update(patch_stride=[2, 2]), r"patch_stride is \[2, 2\]; supported is \[4, 2\]"),
        (lambda c: c["vision_config"].update(num_groups=[1, 1]), "other num_groups than num_heads"),
        (lambda c: c["vision_config"].update(image_feature_source=["last_frame"]), "image_feature_source is"),
        (lambda c: c["vision_config"].update(projection_dim=16), "projection_dim is 16, the language model's d_model 32"),
    ],
)
def test_another_network_under_the_name_of_florence_is_refused(tiny, tmp_path, change, message):
    for name in ("model.safetensors", "generation_config.json", "tokenizer.json", "processor_config.json"):
        (tmp_path / name).write_bytes((tiny[3] / "native" / name).read_bytes())
    config = json.loads((tiny[3] / "native/config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_states_of_prompts_of_different_lengths_give_the_logits_of_each_alone_in_float64(tiny):
    """Joined, in another order, some removed: the keys that a shorter prompt lacks are never read."""
    network = load_checkpoint(tiny[3] / "ours native").network.double()
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
def test_every_map_method_gives_the_same_maps_alone_and_with_longer_prompts(tiny, method):
    captioner = tiny[2]
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
def test_a_prompt_encoder_that_cannot_work_is_an_error_of_its_config(tiny, changes, message):
    config = tiny[2].config
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, prompt_encoder=dataclasses.replace(config.prompt_encoder, **changes))


def test_tasks_of_one_name_or_without_a_default_are_errors(tiny):
    config = tiny[2].config
    for tasks in ((TASKS[0], TASKS[0]), TASKS[6:], ()):
        with pytest.raises(ConfigError, match="tasks"):
            dataclasses.replace(config, tasks=tasks)
    with pytest.raises(ConfigError, match="task is 'nope'"):
        dataclasses.replace(config, generation=GenerationOptions(task="nope"))
    with pytest.raises(ConfigError, match="null_key must be false"):
        dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, null_key=True))


def test_every_part_of_a_florence_gets_lora_and_its_blocks_the_rates_of_their_depth(tiny):
    network = load_checkpoint(tiny[3] / "ours native").network
    encoder, config = network.config.encoder, TrainConfig(data=("scenes",), run="x", layer_decay=0.5)
    names = [name for name, _ in network.named_parameters() if name.startswith("encoder.backbone.stages.1")]
    rates = {".".join(name.split(".")[4:6]): lr_scale(name, encoder, config)[0] for name in names}
    assert rates["blocks.1"] == 2 * rates["blocks.0"] == 4 * next(rate for name, rate in rates.items() if "downsample" in name)
    add_lora(network, 2, 4.0, None)
    for part in ("encoder", "prompt_encoder", "decoder"):
        assert any(isinstance(module, LoraLinear) for module in network.get_submodule(part).modules()), part
