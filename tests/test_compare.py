"""Comparisons of systems and baselines on the same images: tables, files, pages; hallucinated objects; METEOR."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from corpus import DataError, Example, NamedBox, draw_scene
from corpus.scene_files import write_scenes
from evaluation import (
    Hallucination,
    System,
    coco_synonyms,
    compare,
    count_hallucinations,
    count_scene_hallucinations,
    meteor,
    read_results,
    read_synonyms,
    write_results,
)
from evaluation.__main__ import main
from model import Box

COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush "
)


@pytest.mark.parametrize("name", [name.replace("_", " ") for name in COCO.split()])
def test_every_coco_class_is_mentioned_by_its_name_and_its_plural(name):
    words = coco_synonyms()
    plural = {"person": "people", "knife": "knives", "skis": "skis", "scissors": "scissors", "mouse": "mice"}.get(name)
    plural = plural or name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
    assert words.mentions(f"A {name} here.") == words.mentions(f"two {plural} there") == [name]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("a man eats a hot dog next to his dog", ["person", "hot dog", "dog"]),
        ("a baby elephant and a baby", ["elephant", "person"]),
        ("two ladies on the train tracks at a train station", ["person"]),
        ("A girl in an orange shirt with an orange", ["person", "orange"]),
        ("teddy bears near a bear", ["teddy bear", "bear"]),
        ("a doghouse, a catalogue and personal things", []),
        ("puppies, geese and knives", ["dog", "bird", "knife"]),
    ],
)
def test_the_longest_phrase_decides_which_class_is_mentioned(text, classes):
    assert coco_synonyms().mentions(text) == classes


def test_an_object_is_hallucinated_if_neither_boxes_nor_references_show_it():
    captions = {"1": "a dog and a cat on a sofa", "2": "a man", "3": "a zebra"}
    objects = {"1": ["dog"], "2": ["person"]}  # image 3 has no boxes and is not counted
    counts = count_hallucinations(captions, objects, {"1": ["a puppy on a couch"], "2": ["he"]})
    assert counts == Hallucination(mentions=4, hallucinated_mentions=1, captions=2, hallucinated_captions=1)
    assert counts.as_json()["CHAIRi"] == 0.25
    assert counts.as_json()["CHAIRs"] == 0.5


def test_boxes_of_other_classes_are_ignored():
    counts = count_hallucinations({"1": "a dog and a tv"}, {"1": ["Dog", "television", "traffic cone"]}, {})
    assert (counts.mentions, counts.hallucinated_mentions) == (2, 0)


def test_the_word_list_of_chairs_authors_is_read(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("person, guy, lady\ndog, hot dog\n\n")
    assert read_synonyms(path).mentions("ladies, a guy, hot dogs and dogs") == ["person", "person", "dog", "dog"]
    path.write_text("")
    with pytest.raises(DataError, match="has no classes"):
        read_synonyms(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_synonyms(tmp_path / "none")


def test_hallucinations_in_captions_of_scenes_are_counted_exactly():
    scene = draw_scene(2026, 26)  # a blue star, a pink ring, an orange triangle
    texts = ["a blue star , a pink ring above it", "a blue ring and a blue star", ""]
    counts = count_scene_hallucinations(texts, [scene] * 3)
    assert counts == Hallucination(mentions=4, hallucinated_mentions=1, captions=3, hallucinated_captions=1)


def test_results_are_read_back_as_they_were_written(tmp_path):
    system = System("ours", {"139": "a clock", "x1": "一只狗", "007": ""})
    write_results(system, tmp_path / "ours.json")
    assert json.loads((tmp_path / "ours.json").read_text())[0] == {"image_id": 139, "caption": "a clock"}
    restored = read_results(tmp_path / "ours.json")
    assert (restored.name, restored.captions) == ("ours", system.captions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "has no captions"),
        ("[]", "has no captions"),
        ("[", "is not JSON"),
        ('[{"image_id": 1}]', "record 0 is .* must have an 'image_id' and a 'caption'"),
        ('[{"image_id": 1, "caption": 5}]', "record 0 is"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]', "record 1 is a second caption of image '1'"),
    ],
)
def test_an_invalid_record_of_results_is_named(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "r.json")


def make_example(number, *references, split="test", objects=()):
    return Example(b"", references, split, str(number), objects=tuple(NamedBox(name, Box(0, 0, 1, 1)) for name in objects))


EXAMPLES = [
    make_example(1, "a dog runs", "the dog is running fast", "one brown dog", objects=["dog"]),
    make_example(2, "a cat sleeps", "the cat is sleeping", "one grey cat"),
    make_example(3, "a man rides a horse", "the man is riding", "one rider on a horse", objects=["person", "horse"]),
]


def test_a_table_has_systems_baselines_and_humans_on_the_same_references():
    perfect = System("perfect", {example.image_id: example.references[0] for example in EXAMPLES})
    other = System("other", {"1": "a dog runs", "2": "a dog", "3": "a zebra"})
    comparison = compare([perfect, other], EXAMPLES, [make_example(9, "a dog runs", split="train")], humans=True)

    document = comparison.as_json()
    assert list(document["systems"]) == ["perfect", "other"]
    assert list(document["baselines"]) == ["best constant caption", "shuffled captions"]
    assert document["systems"]["perfect"]["CIDEr"] > document["systems"]["other"]["CIDEr"]
    assert document["systems"]["perfect"]["copied"] == pytest.approx(1 / 3)
    assert document["systems"]["perfect"]["CHAIRi"] == 0.0
    assert document["systems"]["other"]["CHAIRs"] == 0.5
    assert document["baselines"]["best constant caption"]["caption"] == "a dog runs"
    leave_one_out = document["leave_one_out"]
    assert list(leave_one_out) == ["human", "perfect", "other", "best constant caption", "shuffled captions"]
    assert {row["rounds"] for row in leave_one_out.values()} == {3}
    assert leave_one_out["perfect"]["CIDEr"] > leave_one_out["human"]["CIDEr"], (
        "in two of three rounds its caption is a reference"
    )
    assert comparison.per_image()["other"]["3"]["caption"] == "a zebra"
    assert comparison.per_image()["perfect"]["1"]["CIDEr"] > 0


def test_hallucinations_are_not_counted_in_other_languages():
    comparison = compare(
        [System("s", {example.image_id: "狗" for example in EXAMPLES})], EXAMPLES, language="zh", baselines=False
    )
    assert "CHAIRi" not in comparison.as_json()["systems"]["s"]


@pytest.fixture
def scenes(tmp_path):
    """Six scenes with captions and boxes, two of them in training, and results of another program, one of them right."""
    write_scenes(tmp_path / "scenes", 6, 7, split="test")
    document = json.loads((tmp_path / "scenes/captions.json").read_text())
    for image in document["images"][:2]:
        image["split"] = "train"
    (tmp_path / "scenes/captions.json").write_text(json.dumps(document))
    first = {row["image_id"]: row["caption"] for row in reversed(document["annotations"])}
    results = [{"image_id": image, "caption": first[image] if image == 2 else "a <b>dog</b>"} for image in range(6)]
    (tmp_path / "other.json").write_text(json.dumps(results))
    return tmp_path


def test_checkpoints_and_results_are_compared_from_the_command_line(scenes, capsys):
    arguments = ["captions", "--data", str(scenes / "scenes"), "--results", str(scenes / "other.json")]
    checkpoint = [
        "--checkpoint",
        "model/default",
        "--num-beams",
        "1",
        "--num-beams",
        "2",
        "--dtype",
        "float32",
        "--baselines",
        "all",
    ]
    output_dir = scenes / "out"
    assert main([*arguments, *checkpoint, "--output-dir", str(output_dir), "--json"]) == 0

    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures["systems"]) == ["greedy", "beam 2", "other"]
    assert list(figures["baselines"]) == ["best constant caption", "shuffled captions", "nearest-image captions"]
    assert figures["systems"]["beam 2"]["CIDEr"] > figures["systems"]["other"]["CIDEr"]
    assert figures["systems"]["other"]["images"] == 4
    assert sorted(path.name for path in output_dir.iterdir()) == ["captions", "page.html", "scores.json"]
    assert sorted(path.name for path in (output_dir / "captions").iterdir()) == ["beam-2.json", "greedy.json", "other.json"]
    restored = read_results(output_dir / "captions/beam-2.json")
    scores = json.loads((output_dir / "scores.json").read_text())
    assert {image: row["caption"] for image, row in scores["images"]["beam 2"].items()} == restored.captions
    page = (output_dir / "page.html").read_text()
    assert "<b>dog" not in page
    assert "a &lt;b&gt;dog" in page
    assert page.count("data:image/jpeg;base64,") > 60, "images and maps"

    assert main([*arguments, *checkpoint, "--output-dir", str(output_dir)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main([*arguments, "--split", "test"]) == 0
    table = capsys.readouterr().out
    assert table.split()[:4] == ["CIDEr", "BLEU-4", "BLEU-1", "ROUGE-L"]
    assert "4 images, PTB tokens" in table


def test_systems_with_equal_names_get_different_names(scenes, capsys):
    (scenes / "b").mkdir()
    shutil.copy(scenes / "other.json", scenes / "b/other.json")
    shutil.copy(scenes / "other.json", scenes / "human.json")
    arguments = [part for name in ("other", "b/other", "human") for part in ("--results", str(scenes / f"{name}.json"))]
    assert main(["captions", "--data", str(scenes / "scenes"), *arguments, "--baselines", "all", "--json"]) == 0
    output = capsys.readouterr()
    figures = json.loads(output.out.splitlines()[-1])
    assert list(figures["systems"]) == ["other", "other (2)", "human (2)"]
    assert list(figures["leave_one_out"])[:4] == ["human", "other", "other (2)", "human (2)"]
    assert "no baseline of nearest images" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "scenes", "--meteor"], "scenes are judged exactly"),
        (["--data", "none", "--language", "zh", "--meteor"], "METEOR is computed for English only"),
    ],
)
def test_options_that_cannot_be_combined_are_errors(arguments, message, capsys):
    assert main(["captions", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_broken_image_is_named(scenes, capsys):
    path = next((scenes / "scenes/images").glob("*-000003.png"))
    path.write_bytes(path.read_bytes()[:500])
    assert main(["captions", "--data", str(scenes / "scenes"), "--num-beams", "1"]) == 1
    assert re.search(r"captions.json: images\[3\]: .*000003.png cannot be used", capsys.readouterr().err)


def test_results_must_have_a_caption_of_every_image(scenes, capsys):
    (scenes / "few.json").write_text('[{"image_id": 2, "caption": "a"}]')
    both = ["--results", str(scenes / "other.json"), "--results", str(scenes / "few.json")]
    assert main(["captions", "--data", str(scenes / "scenes"), *both]) == 1
    assert "few has no caption of 5 images, among them '0'" in capsys.readouterr().err
    (scenes / "few.json").write_text('[{"image_id": 77, "caption": "a"}, {"image_id": 2, "caption": "a"}]')
    assert main(["captions", "--data", str(scenes / "scenes"), "--results", str(scenes / "few.json")]) == 1
    assert "few has a caption of '77'" in capsys.readouterr().err
    (scenes / "few.json").write_text('[{"image_id": "2.png", "caption": "a"}]')
    assert main(["captions", "--data", str(scenes / "scenes"), "--results", str(scenes / "few.json")]) == 1
    assert "they have ids such as '2.png', the data such as '0'" in capsys.readouterr().err
    assert main(["captions", "--data", str(scenes / "scenes"), "--output-dir", str(scenes / "few.json/x")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_every_decoding_setting_captions_the_scenes(capsys):
    assert main(["captions", "--data", "scenes", "--scenes", "6", "--num-beams", "1", "--num-beams", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["greedy", "beam 2"]
    assert figures["greedy"]["training_pairs"]["right"] > 0.4
    assert figures["greedy"]["training_pairs"]["mentions"] >= 6


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program")
@pytest.mark.slow
def test_meteor_is_highest_for_a_copy_and_positive_for_a_paraphrase():
    candidates = [["a", "dog", "runs", "on", "grass"], ["a", "dog", "runs"], ["a", "zebra"]]
    references = [[["a", "dog", "runs", "on", "grass"]], [["a", "dog", "is", "running"]], [["two", "people", "swim"]]]
    total, (copy, paraphrase, other) = meteor(candidates, references)
    assert copy == pytest.approx(1.0, abs=0.05)
    assert 0.0 <= other < paraphrase < copy
    assert other < total < copy


def test_meteor_without_java_is_a_data_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="there is no java; install a Java runtime"):
        meteor([["a"]], [[["a"]]])
