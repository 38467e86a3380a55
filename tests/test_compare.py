"""Systems beside baselines on the same pictures: tables, files, pages; invented objects; METEOR."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from corpus import DataError, Example, NamedBox, draw_scene
from corpus.scene_files import write_scenes
from evaluation import (
    System,
    compare,
    invented_in_scenes,
    invented_objects,
    meteor,
    own_synonyms,
    read_results,
    read_synonyms,
    streaming_figures,
    write_results,
)
from evaluation.__main__ import main
from evaluation.streaming import resident_megabytes
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
def test_every_class_of_coco_is_named_by_itself_and_its_plural(name):
    words = own_synonyms()
    plural = {"person": "people", "knife": "knives", "skis": "skis", "scissors": "scissors", "mouse": "mice"}.get(name)
    plural = plural or name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
    assert words.named(f"A {name} here.") == words.named(f"two {plural} there") == [name]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("a man eats a hot dog beside his dog", ["person", "hot dog", "dog"]),
        ("a baby elephant and a baby", ["elephant", "person"]),
        ("two ladies on the train tracks at a train station", ["person"]),
        ("A girl in an orange shirt with an orange", ["person", "orange"]),
        ("teddy bears near a bear", ["teddy bear", "bear"]),
        ("a doghouse, a catalogue and personal things", []),
        ("puppies, geese and knives", ["dog", "bird", "knife"]),
    ],
)
def test_classes_are_found_by_the_longest_phrase(text, classes):
    assert own_synonyms().named(text) == classes


def test_an_object_is_invented_that_neither_boxes_nor_references_show():
    captions = {"1": "a dog and a cat on a sofa", "2": "a man", "3": "a zebra"}
    objects = {"1": ["dog"], "2": ["person"]}  # image 3 has no boxes: nothing is known of it
    found = invented_objects(captions, objects, {"1": ["a puppy on a couch"], "2": ["he"]})
    assert (found.mentions, found.invented, found.captions, found.spoilt) == (4, 1, 2, 1)
    assert found.as_json()["CHAIRi"] == 0.25
    assert found.as_json()["CHAIRs"] == 0.5


def test_boxes_of_other_things_count_for_nothing():
    found = invented_objects({"1": "a dog and a tv"}, {"1": ["Dog", "television", "traffic cone"]}, {})
    assert (found.mentions, found.invented) == (2, 0)


def test_the_list_of_chairs_authors_is_read(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("person, guy, lady\ndog, hot dog\n\n")
    assert read_synonyms(path).named("ladies, a guy, hot dogs and dogs") == ["person", "person", "dog", "dog"]
    path.write_text("")
    with pytest.raises(DataError, match="holds no class"):
        read_synonyms(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_synonyms(tmp_path / "none")


def test_what_captions_of_scenes_invent_is_exact():
    scene = draw_scene(2026, 26)  # a blue star, a pink ring, an orange triangle
    texts = ["a blue star , a pink ring above it", "a blue ring and a blue star", ""]
    found = invented_in_scenes(texts, [scene] * 3)
    assert (found.mentions, found.invented, found.captions, found.spoilt) == (4, 1, 3, 1)


def test_results_are_read_as_they_were_written(tmp_path):
    system = System("ours", {"139": "a clock", "x1": "一只狗", "007": ""})
    write_results(system, tmp_path / "ours.json")
    assert json.loads((tmp_path / "ours.json").read_text())[0] == {"image_id": 139, "caption": "a clock"}
    found = read_results(tmp_path / "ours.json")
    assert (found.name, found.captions) == ("ours", system.captions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "holds no captions"),
        ("[]", "holds no captions"),
        ("[", "cannot be read as JSON"),
        ('[{"image_id": 1}]', "record 0 is .* must have an 'image_id' and a 'caption'"),
        ('[{"image_id": 1, "caption": 5}]', "record 0 is"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]', "record 1 is a second caption of image '1'"),
    ],
)
def test_broken_results_name_the_record(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "r.json")


def example(number, *references, split="test", objects=()):
    return Example(b"", references, split, str(number), objects=tuple(NamedBox(name, Box(0, 0, 1, 1)) for name in objects))


EXAMPLES = [
    example(1, "a dog runs", "the dog is running fast", "one brown dog", objects=["dog"]),
    example(2, "a cat sleeps", "the cat is sleeping", "one grey cat"),
    example(3, "a man rides a horse", "the man is riding", "one rider on a horse", objects=["person", "horse"]),
]


def test_a_table_has_systems_baselines_and_humans_on_the_same_references():
    perfect = System("perfect", {one.image_id: one.references[0] for one in EXAMPLES})
    other = System("other", {"1": "a dog runs", "2": "a dog", "3": "a zebra"})
    found = compare([perfect, other], EXAMPLES, [example(9, "a dog runs", split="train")], humans=True)

    document = found.as_json()
    assert list(document["systems"]) == ["perfect", "other"]
    assert list(document["baselines"]) == ["best constant caption", "on wrong pictures"]
    assert document["systems"]["perfect"]["CIDEr"] > document["systems"]["other"]["CIDEr"]
    assert document["systems"]["perfect"]["copied"] == pytest.approx(1 / 3)
    assert document["systems"]["perfect"]["CHAIRi"] == 0.0
    assert document["systems"]["other"]["CHAIRs"] == 0.5
    assert document["baselines"]["best constant caption"]["caption"] == "a dog runs"
    left = document["one reference left out"]
    assert list(left) == ["human", "perfect", "other", "best constant caption", "on wrong pictures"]
    assert {row["rounds"] for row in left.values()} == {3}
    assert left["perfect"]["CIDEr"] > left["human"]["CIDEr"], "two of its three rounds still hold its own caption"
    assert found.per_image()["other"]["3"]["caption"] == "a zebra"
    assert found.per_image()["perfect"]["1"]["CIDEr"] > 0


def test_other_languages_have_no_invented_objects():
    found = compare([System("s", {one.image_id: "狗" for one in EXAMPLES})], EXAMPLES, language="zh", baselines=False)
    assert "CHAIRi" not in found.as_json()["systems"]["s"]


@pytest.fixture
def scenes(tmp_path):
    """Six scenes with captions and boxes, five in training; and results of another program, one right."""
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
    own = ["--checkpoint", "model/default", "--num-beams", "1", "--num-beams", "2", "--dtype", "float32", "--baselines", "all"]
    out = scenes / "out"
    assert main([*arguments, *own, "--out", str(out), "--json"]) == 0

    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures["systems"]) == ["greedy", "beam 2", "other"]
    assert list(figures["baselines"]) == ["best constant caption", "on wrong pictures", "of the nearest pictures"]
    assert figures["systems"]["beam 2"]["CIDEr"] > figures["systems"]["other"]["CIDEr"]
    assert figures["systems"]["other"]["images"] == 4
    assert sorted(path.name for path in out.iterdir()) == ["captions", "page.html", "scores.json"]
    assert sorted(path.name for path in (out / "captions").iterdir()) == ["beam-2.json", "greedy.json", "other.json"]
    again = read_results(out / "captions/beam-2.json")
    kept = json.loads((out / "scores.json").read_text())
    assert {image: row["caption"] for image, row in kept["images"]["beam 2"].items()} == again.captions
    page = (out / "page.html").read_text()
    assert "<b>dog" not in page
    assert "a &lt;b&gt;dog" in page
    assert page.count("data:image/jpeg;base64,") > 60, "photographs and maps"

    assert main([*arguments, *own, "--out", str(out)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main([*arguments, "--split", "test"]) == 0
    table = capsys.readouterr().out
    assert table.split()[:4] == ["CIDEr", "BLEU-4", "BLEU-1", "ROUGE-L"]
    assert "4 images, PTB tokens" in table


def test_systems_of_one_name_are_kept_apart(scenes, capsys):
    (scenes / "b").mkdir()
    shutil.copy(scenes / "other.json", scenes / "b/other.json")
    shutil.copy(scenes / "other.json", scenes / "human.json")
    arguments = [part for name in ("other", "b/other", "human") for part in ("--results", str(scenes / f"{name}.json"))]
    assert main(["captions", "--data", str(scenes / "scenes"), *arguments, "--baselines", "all", "--json"]) == 0
    told = capsys.readouterr()
    figures = json.loads(told.out.splitlines()[-1])
    assert list(figures["systems"]) == ["other", "other (2)", "human (2)"]
    assert list(figures["one reference left out"])[:4] == ["human", "other", "other (2)", "human (2)"]
    assert "no captions of the nearest pictures" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "scenes", "--meteor"], "scenes are drawn and judged exactly"),
        (["--data", "none", "--language", "zh", "--meteor"], "METEOR here is that of English"),
    ],
)
def test_options_that_cannot_be_met_are_told(arguments, message, capsys):
    assert main(["captions", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_broken_picture_is_named(scenes, capsys):
    path = next((scenes / "scenes/images").glob("*-000003.png"))
    path.write_bytes(path.read_bytes()[:500])
    assert main(["captions", "--data", str(scenes / "scenes"), "--num-beams", "1"]) == 1
    assert re.search(r"captions.json: images\[3\]: .*000003.png cannot be used", capsys.readouterr().err)


def test_results_must_have_a_caption_of_every_image(scenes, capsys):
    (scenes / "few.json").write_text('[{"image_id": 2, "caption": "a"}]')
    both = ["--results", str(scenes / "other.json"), "--results", str(scenes / "few.json")]
    assert main(["captions", "--data", str(scenes / "scenes"), *both]) == 1
    assert "few has no caption of 5 images, '0' among them" in capsys.readouterr().err
    (scenes / "few.json").write_text('[{"image_id": 77, "caption": "a"}, {"image_id": 2, "caption": "a"}]')
    assert main(["captions", "--data", str(scenes / "scenes"), "--results", str(scenes / "few.json")]) == 1
    assert "few has a caption of '77'" in capsys.readouterr().err
    (scenes / "few.json").write_text('[{"image_id": "2.png", "caption": "a"}]')
    assert main(["captions", "--data", str(scenes / "scenes"), "--results", str(scenes / "few.json")]) == 1
    assert "they have ids such as '2.png', the data such as '0'" in capsys.readouterr().err
    assert main(["captions", "--data", str(scenes / "scenes"), "--out", str(scenes / "few.json/x")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_scenes_are_judged_for_every_setting(capsys):
    assert main(["captions", "--data", "scenes", "--scenes", "6", "--num-beams", "1", "--num-beams", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["greedy", "beam 2"]
    assert figures["greedy"]["seen pairs"]["right"] > 0.4
    assert figures["greedy"]["seen pairs"]["objects named"] >= 6


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program")
def test_meteor_knows_synonyms_and_a_copy_is_best():
    copy, _ = meteor([["a", "dog", "runs", "on", "grass"]], [[["a", "dog", "runs", "on", "grass"]]])
    near, alone = meteor([["a", "dog", "runs"], ["a", "zebra"]], [[["a", "dog", "is", "running"]], [["two", "people", "swim"]]])
    assert copy == pytest.approx(1.0, abs=0.05)
    assert 0.0 < near < copy
    assert alone[0] > alone[1]


def test_meteor_without_java_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="there is no java; install a Java runtime"):
        meteor([["a"]], [[["a"]]])


def test_streams_are_timed_and_hold_nothing(tmp_path):
    figures = streaming_figures(200, tmp_path)
    assert figures["samples"] == 200
    assert len(figures["memory in MB after each tenth"]) == 10
    assert figures["rate of tarfile's stream"]["median"] > 0
    assert not list(tmp_path.iterdir())
    assert resident_megabytes() > 10
