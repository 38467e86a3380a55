"""Regions, dense captions and tasks over HTTP: for a checkpoint with prompts, and for one that captions a crop."""

from __future__ import annotations

import json

import pytest
import torch
from fastapi.testclient import TestClient

from model import Box, CaptionRequest, prepare, prepare_regions
from service import Settings, create_app
from tests.compatible import APIS, send, serving
from tests.conftest import problem

REGIONS = [[10, 5, 60, 45], [40.5, 20, 119, 89], [0, 0, 1000, 1000]]
ANALYZE = "/computervision/imageanalysis:analyze"


@pytest.fixture(scope="module")
def prompted(florence, tiny_captioner):
    """A client whose first checkpoint has tasks, and whose second one has none."""
    with TestClient(
        create_app({"florence": florence[2], "plain": tiny_captioner}, Settings()), raise_server_exceptions=False
    ) as one:
        yield one


def captions(client, content, **params):
    response = client.post("/v1/captions", content=content, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_regions_of_a_checkpoint_without_tasks_are_captioned_by_crops_with_context(client, tiny_captioner, image_bytes):
    body = captions(client, image_bytes, regions=json.dumps(REGIONS))
    assert [caption["region"] for caption in body["captions"]] == [[10, 5, 60, 45], [40, 20, 119, 89], [0, 0, 1000, 1000]]
    views = prepare_regions(image_bytes, tiny_captioner.image_config, [Box(*region) for region in REGIONS], context=0.2)
    expected = tiny_captioner.caption(views)
    for caption, view, result in zip(body["captions"], views, expected, strict=True):
        assert caption["text"] == result.captions[0].text
        covers = [round(edge) for edge in (view.covers.x0, view.covers.y0, view.covers.x1, view.covers.y1)]
        assert (caption["grid"] or body["grid"])["covers"] == covers
        for word, same in zip(caption["words"], result.captions[0].words, strict=True):
            assert word["box"] == list(same.box), "boxes are in pixels of the whole image"
            x0, y0, x1, y1 = word["box"]
            assert covers[0] - 1 <= x0 < x1 <= covers[2] + 1
            assert covers[1] - 1 <= y0 < y1 <= covers[3] + 1
            assert torch.tensor(word["map"]["values"]).sub(same.map.values).abs().max() < 1e-4
    assert body["captions"][0]["grid"]["covers"] == [0, 0, 70, 53], "a fifth more on each side, inside the image"
    assert body["captions"][0]["words"] != body["captions"][1]["words"]


def test_maps_of_a_crop_are_resampled_to_the_whole_image(client, image_bytes):
    """On a grid over the image, the cells outside of the crop are 0."""
    body = captions(client, image_bytes, regions="[[60, 0, 120, 45]]", map_size="12x9")
    covers = body["captions"][0]["grid"]["covers"]
    assert covers == [48, 0, 120, 54]
    for word in body["captions"][0]["words"]:
        values = torch.tensor(word["map"]["values"]).reshape(9, 12)
        assert values[:, :4].sum() == 0, "left of the crop"
        assert values[6:].sum() == 0, "below it"
        assert values.sum() == pytest.approx(1, abs=1e-3)


def test_regions_of_a_checkpoint_with_a_region_task_go_into_its_prompt(prompted, florence, image_bytes):
    body = captions(prompted, image_bytes, regions=json.dumps(REGIONS))
    captioner = florence[2]
    view = prepare(image_bytes, captioner.image_config)
    batch = captioner.batch()
    requests = [CaptionRequest(view=view, options=captioner.config.generation, region=Box(*region)) for region in REGIONS]
    batch.add([0, 1, 2], requests)
    batch.run()
    for caption, result in zip(body["captions"], batch.pop_results([0, 1, 2]), strict=True):
        assert caption["text"] == result.captions[0].text
        assert caption["grid"] is None, "its maps are those of the whole image"
        for word in caption["words"]:
            assert 0 < word["prompt_mass"] < 1
            assert word["image_mass"] + word["prompt_mass"] < 1 + 1e-6
    assert body["grid"]["covers"] == [0, 0, 120, 90]


def test_dense_captions_have_a_region_each_and_words_inside_their_text(prompted, image_bytes):
    body = captions(prompted, image_bytes, dense="true", strategy="greedy", max_new_tokens="60")
    same = captions(prompted, image_bytes, task="dense_region_caption", strategy="greedy", max_new_tokens="60")
    assert body["captions"] == same["captions"]
    assert body["captions"], "nothing located tests nothing"
    for caption in body["captions"]:
        x0, y0, x1, y1 = caption["region"]
        assert 0 <= x0 <= x1 <= 120
        assert 0 <= y0 <= y1 <= 90
        assert all(caption["text"][word["start"] : word["end"]] == word["text"] for word in caption["words"])
        assert caption["text"] == caption["text"].strip()


def test_corners_of_text_that_is_not_level_are_returned(prompted, image_bytes):
    body = captions(prompted, image_bytes, task="ocr_with_region", strategy="greedy", max_new_tokens="60")
    for caption in body["captions"]:
        assert len(caption["polygon"]) == 8
        assert caption["region"] == [min(caption["polygon"][::2]), min(caption["polygon"][1::2]),
                                     max(caption["polygon"][::2]), max(caption["polygon"][1::2])]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "name", "message"),
    [
        ({"regions": "[[0, 0, 5]]"}, "regions", "must be a list of 1 to 32"),
        ({"regions": "[]"}, "regions", "must be a list of 1 to 32"),
        ({"regions": "all"}, "regions", "must be a list of 1 to 32"),
        ({"regions": json.dumps([[0, 0, 9, 9]] * 33)}, "regions", "must be a list of 1 to 32"),
        ({"regions": "[[5, 5, 5, 9]]"}, "regions", "with x0 < x1 and y0 < y1"),
        ({"regions": "[[NaN, 5, 5, 9]]"}, "regions", "must be a list of 1 to 32"),
        ({"regions": "[[130, 5, 140, 9]]"}, "regions", "has no pixel in an image of 120 x 90"),
        ({"regions": "[[0, 0, 0.4, 9]]"}, "regions", "has no pixel in an image of 120 x 90"),
        ({"dense": "maybe"}, "dense", "must be true or false"),
        ({"task": "caption", "regions": "[[0, 0, 9, 9]]"}, "task", "describes the whole image"),
        ({"task": "region_caption"}, "task", "send regions"),
        ({"task": "segmentation"}, "task", "this checkpoint has caption, detailed_caption"),
        ({"task": "phrase_grounding"}, "task_input", "needs the text that it is about"),
        ({"dense": "true", "task": "ocr"}, "dense", "task are set, too"),
        ({"dense": "true", "regions": "[[0, 0, 9, 9]]"}, "dense", "regions are set, too"),
        ({"dense": "true", "model": "plain"}, "dense", "the checkpoint 'plain' does not locate what it describes"),
        ({"task": "ocr", "model": "plain"}, "task", "this checkpoint has one task, which needs no name"),
        ({"task_input": "a dog", "model": "plain"}, "task_input", "this checkpoint needs none"),
        ({"dense": "true", "min_confidence": "0.3"}, "min_confidence", "gives phrases with regions"),
        ({"task": "phrase_grounding", "task_input": "a dog " * 160}, "task_input", "this checkpoint has room for"),
        ({"model": "plain", "regions": "[[130, 5, 140, 9]]"}, "regions", "has no pixel in an image of 120 x 90"),
    ],
)  # fmt: skip
def test_what_cannot_be_located_is_an_invalid_option(prompted, image_bytes, params, name, message):
    body = problem(prompted.post("/v1/captions", content=image_bytes, params=params), "invalid_option")
    assert body["errors"][0]["parameter"] == name
    assert message in body["errors"][0]["detail"]


def test_regions_have_no_stream_and_no_batch(prompted, image_bytes):
    options = {"regions": "[[0, 0, 9, 9]]"}
    stream = prompted.post("/v1/captions", content=image_bytes, params=options, headers={"accept": "text/event-stream"})
    assert "not word by word" in problem(stream, "invalid_option")["detail"]
    batch = prompted.post("/v1/captions/batch", files=[("image", image_bytes)] * 2, data=options)
    assert "those of one image" in problem(batch, "invalid_option")["detail"]


@pytest.mark.parametrize("model", ["florence", "plain"])
def test_regions_have_every_other_form_of_response(prompted, image_bytes, model):
    options = {"regions": "[[10, 10, 60, 60], [30, 0, 100, 80]]", "model": model}
    text = prompted.post("/v1/captions", content=image_bytes, params=options, headers={"accept": "text/plain"})
    assert len(text.text.splitlines()) == 2
    page = prompted.post("/v1/captions", content=image_bytes, params=options, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "10, 10, 60, 60" in page.text
    sheet = prompted.post("/v1/captions", content=image_bytes, params=options, headers={"accept": "image/png"})
    assert sheet.content.startswith(b"\x89PNG")


def test_a_stream_of_a_dense_caption_ends_with_all_of_it(prompted, image_bytes):
    options = {"dense": "true", "strategy": "greedy", "max_new_tokens": "60"}
    stream = prompted.post("/v1/captions", content=image_bytes, params=options, headers={"accept": "text/event-stream"})
    events = [part for part in stream.text.split("\n\n") if part.startswith("event: caption")]
    assert json.loads(events[0].partition("data: ")[2])["captions"] == captions(prompted, image_bytes, **options)["captions"]


def test_models_say_which_tasks_they_have(prompted):
    florence, plain = prompted.get("/v1/models").json()["data"]
    assert plain["tasks"] == []
    assert florence["tasks"][0] == {"name": "caption", "input": "none", "output": "text"}
    assert {"name": "phrase_grounding", "input": "text", "output": "boxes"} in florence["tasks"]


def test_azures_dense_captions_begin_with_the_whole_image(prompted, image_bytes):
    query = {"api-version": "2023-10-01", "features": "caption,denseCaptions", "model-name": "florence"}
    body = prompted.post(ANALYZE, content=image_bytes, params=query).json()
    values = body["denseCaptionsResult"]["values"]
    assert values[0]["text"] == body["captionResult"]["text"] == captions(prompted, image_bytes)["captions"][0]["text"]
    assert values[0]["boundingBox"] == {"x": 0, "y": 0, "w": 120, "h": 90}
    parts = captions(prompted, image_bytes, dense="true")["captions"]
    assert [value["text"] for value in values[1:]] == [part["text"] for part in parts][:9]
    for value, part in zip(values[1:], parts, strict=False):
        box = value["boundingBox"]
        assert [box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]] == part["region"]
        assert 0 <= value["confidence"] <= 1


def test_azures_dense_captions_are_refused_where_the_checkpoint_has_none(prompted, image_bytes):
    query = {"api-version": "2023-10-01", "features": "denseCaptions", "model-name": "plain"}
    response = prompted.post(ANALYZE, content=image_bytes, params=query)
    assert response.status_code == 400
    assert response.json()["error"]["innererror"]["code"] == "NotSupportedVisualFeature"


def test_compatible_apis_take_regions_as_their_own_options(prompted, image_bytes):
    import base64

    image = base64.b64encode(image_bytes).decode()
    details = {"regions": [[10, 10, 60, 60], [30, 0, 100, 80]]}
    body = prompted.post("/v1/caption", json={"image_url": f"data:image/jpeg;base64,{image}", "sightline": details}).json()
    assert [caption["region"] for caption in body["sightline"]["captions"]] == details["regions"]
    streamed = {"image_url": f"data:image/jpeg;base64,{image}", "sightline": details, "stream": True}
    assert prompted.post("/v1/caption", json=streamed).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_about_nothing_that_is_located_has_one_empty_choice(prompted, image_bytes, stream):
    import base64

    url = "data:image/jpeg;base64," + base64.b64encode(image_bytes).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "florence", "messages": [{"role": "user", "content": content}], "stream": stream,
            "sightline": {"dense": True, "max_new_tokens": 1}}  # fmt: skip
    response = prompted.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert "error" not in response.text
    if not stream:
        assert [choice["message"]["content"] for choice in response.json()["choices"]] == [""]


@pytest.mark.parametrize("name", APIS)
def test_compatible_apis_serve_a_converted_florence(florence, image_bytes, name):
    with serving(florence[2]) as client:
        response = send(client, name, image_bytes)
        assert response.status_code == 200, response.text
        native = client.post("/v1/captions", content=image_bytes).json()["captions"][0]
        assert APIS[name].caption(response.json()) == native["text"]


def test_the_document_has_regions_as_json_text_where_there_is_no_json(prompted):
    document = prompted.get("/openapi.json").json()["paths"]["/v1/captions"]["post"]
    (query,) = [entry for entry in document["parameters"] if entry["name"] == "regions"]
    content = document["requestBody"]["content"]
    form, body = (content[kind]["schema"]["properties"]["regions"] for kind in ("multipart/form-data", "application/json"))
    assert query["schema"]["type"] == form["type"] == "string"
    assert body["anyOf"][0]["items"]["maxItems"] == 4
