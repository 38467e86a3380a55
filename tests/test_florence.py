"""Florence-2: both layouts, tasks, coordinates and regions equal the peer's own processor and `generate`, and its maps."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil

import pytest
import torch

from model import (
    CaptionRequest,
    CheckpointError,
    ConfigError,
    GenerationOptions,
    TextError,
    load_checkpoint,
    prepare,
)
from model.config import PromptEncoderConfig
from model.geometry import Box
from model.located import located_phrases
from model.pretrained import convert_source
from model.pretrained.florence import TASKS
from model.prompts import prompt_ids
from tests.florence import SIDE
from tests.test_convert import png, random_images

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
GREEDY = {"strategy": "greedy", "max_new_tokens": 40, "no_repeat_ngram_size": 3}


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


def test_both_layouts_give_the_same_checkpoint(florence):
    one, other = (load_checkpoint(florence[3] / f"ours {layout}") for layout in ("native", "microsofts"))
    assert one.tokenizer.size == other.tokenizer.size + 1, "transformers' has a token <image>"
    first, second = (dataclasses.asdict(checkpoint.config.decoder) for checkpoint in (one, other))
    assert {name for name in first if first[name] != second[name]} == {"vocab_size"}
    assert dataclasses.replace(one.config, decoder=other.config.decoder, created=0) == dataclasses.replace(
        other.config, created=0
    )
    for name, value in other.network.state_dict().items():
        assert torch.equal(one.network.state_dict()[name][: len(value)], value), name


def test_a_source_without_a_limit_of_tokens_may_answer_at_length(florence, tmp_path):
    assert florence[2].config.generation.max_new_tokens == 24
    shutil.copytree(florence[3] / "native", tmp_path / "source")
    path = tmp_path / "source/generation_config.json"
    settings = json.loads(path.read_text())
    del settings["max_new_tokens"]
    path.write_text(json.dumps(settings))
    convert_source(tmp_path / "source", tmp_path / "ours")
    assert load_checkpoint(tmp_path / "ours").config.generation.max_new_tokens == 1024


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_the_prompt_of_every_task_has_the_ids_of_the_peers_processor(florence, task):
    _, processor, captioner, _ = florence
    for image in random_images():
        region = Box(3, 5, 20.7, 28) if task in WITH_REGION else None
        ids = prompt_ids(captioner.config, captioner.tokenizer, requested(captioner, image, task, region), 17)
        theirs = inputs_of(processor, image, task, region)["input_ids"][0].tolist()
        assert list(ids) == theirs[1 + (SIDE // 8) ** 2 :]


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_every_task_gives_the_peers_answer(florence, task):
    """Texts equal the peer's; where coordinates are expected, the phrases and regions are those of the peer's tokens."""
    peer, processor, captioner, _ = florence
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
def test_phrases_and_coordinates_equal_those_of_the_peers_own_parser(florence, task):
    """Answers as the network was trained to write them; what another order of tokens means, the peer's expressions do not say."""
    _, processor, captioner, _ = florence
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


def test_prompts_of_different_lengths_step_together_and_share_an_image(florence):
    """A batch of tasks and regions, of one image and another, gives what each gives alone."""
    captioner = florence[2]
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


def test_shares_of_image_and_prompt_are_those_of_the_peers_attention(florence):
    peer, processor, captioner, _ = florence
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
def test_a_task_that_cannot_be_done_is_an_error_and_nothing_is_added(florence, values, region, message):
    captioner = florence[2]
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
def test_another_network_under_the_name_of_florence_is_refused(florence, tmp_path, change, message):
    for name in ("model.safetensors", "generation_config.json", "tokenizer.json", "processor_config.json"):
        (tmp_path / name).write_bytes((florence[3] / "native" / name).read_bytes())
    config = json.loads((florence[3] / "native/config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        convert_source(tmp_path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
