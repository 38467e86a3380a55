"""What is wrong with data is found before anybody trains on it, and told with file, line and record."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from corpus import DataError, read_data
from corpus.__main__ import main
from corpus.check import check_data
from corpus.check_captions import scripts_of
from corpus.duplicates import groups, near_links
from corpus.pages import sample_examples


def scene(seed, size=(160, 120)):
    """A picture that is like no other: rectangles drawn at random."""
    dice = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(map(int, dice.integers(0, 256, 3))))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(part) for part in dice.integers(0, 100, 4))
        draw.rectangle((x, y, x + w, y + h), tuple(map(int, dice.integers(0, 256, 3))))
    return image


def saved(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def spoilt(tmp_path):
    """One picture of every trouble, and six sound ones."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = tmp_path / "images"
    for number in range(6):
        saved(scene(number), pictures / f"{number}.png")
    saved(scene(0), pictures / "leak.png")
    saved(scene(1), pictures / "twice.png")
    saved(scene(2).resize((200, 150)), pictures / "near.jpg", quality=60)
    saved(scene(3).resize((80, 60)), pictures / "near_leak.webp")
    saved(scene(20, (40, 200)), pictures / "thin.png")
    saved(scene(21), pictures / "phone.jpg", exif=exif)
    saved(Image.new("RGB", (100, 100), "grey"), pictures / "blank1.png")
    saved(Image.new("RGB", (90, 100), "grey"), pictures / "blank2.png")
    saved(Image.new("L", (10_000, 6_000)), pictures / "huge.png")
    (pictures / "broken.jpg").write_bytes((pictures / "phone.jpg").read_bytes()[:700])
    (pictures / "text.png").write_text("not found")
    splits = {"leak": "test", "near_leak": "val"}
    captions = {
        "0": ["A dog runs.", "a dog runs"],
        "1": [""],
        "2": ["dog"],
        "3": ["一只狗在跑。"],
        "4": [" ".join(["word"] * 70)],
        "5": [],
        "thin": ["!?"],
    }
    rows = []
    for path in [*sorted(pictures.iterdir()), pictures / "gone.jpg"]:
        texts = captions.get(path.stem, [f"a picture of {path.stem} things"])
        rows.append(
            {
                "file_name": f"images/{path.name}",
                "image_id": path.stem,
                "captions": texts,
                "split": splits.get(path.stem, "train"),
            }
        )
    lines = [json.dumps(row) for row in rows]
    lines.insert(3, "{not json")
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path


def line_of(folder, image_id):
    lines = (folder / "metadata.jsonl").read_text().split("\n")
    return 1 + next(number for number, line in enumerate(lines) if f'"image_id": "{image_id}"' in line)


FOUND = {
    "pictures missing": ("error", ["gone"]),
    "pictures broken": ("error", ["broken", "text"]),
    "the same picture in several splits": ("error", ["0"]),
    "nearly the same picture in several splits": ("warning", ["3"]),
    "the same picture twice in a split": ("warning", ["1"]),
    "nearly the same picture twice in a split": ("warning", ["2"]),
    "blank pictures": ("warning", ["blank1", "blank2", "huge"]),
    "tiny pictures, an edge under 64 pixels": ("warning", ["near_leak", "thin"]),
    "huge pictures, over 50 million pixels": ("warning", ["huge"]),
    "extreme shapes, over 4 to 1": ("warning", ["thin"]),
    "captions in another script than their language": ("warning", ["3"]),
    "captions without a letter or digit": ("warning", ["1", "thin"]),
    "pictures without a caption": ("warning", ["5"]),
    "captions of more than 60 words": ("warning", ["4"]),
    "captions told twice of one picture": ("warning", ["0"]),
    "pictures turned by EXIF": ("note", ["phone"]),
    "captions of one word": ("note", ["2"]),
}


def test_every_trouble_is_found_and_told_with_its_line(spoilt):
    report = check_data(str(spoilt))

    found = {entry.title: entry for entry in report.findings}
    for title, (level, images) in FOUND.items():
        where = [case.where for case in found[title].cases]
        assert found[title].level == level
        assert where == [f"{spoilt / 'metadata.jsonl'}, line {line_of(spoilt, image)}" for image in images], title
    (record,) = found["records that cannot be read"].cases
    assert re.search(r"metadata.jsonl, line 4 is no JSON", record.text)
    assert set(found) - set(FOUND) == {"records that cannot be read", "pictures have different numbers of captions"} | (
        {"capitals and full stops vary"} & set(found)
    )
    assert [entry.level for entry in report.findings] == sorted(
        (entry.level for entry in report.findings), key=["error", "warning", "note"].index
    )


def test_sound_data_has_no_errors(tmp_path):
    for number in range(25):
        saved(scene(number), tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"picture number {number}\n")
    report = check_data(str(tmp_path))
    assert [entry.title for entry in report.findings] == ["one size for all pictures"]
    assert "all 25 pictures are 160 x 120" in report.findings[0].cases[0].text
    assert "25 pictures (train 25), 25 captions (language not told 25)" in report.in_words()
    assert report.in_words().endswith("no errors")


def test_official_lists_tell_who_is_besides(tmp_path):
    for number in range(3):
        saved(scene(number), tmp_path / "d" / f"{number}.png")
        (tmp_path / "d" / f"{number}.txt").write_text("a b c")
    (tmp_path / "train.txt").write_text("0.png\n7.png\n")
    report = check_data(str(tmp_path / "d"), lists={"train": tmp_path / "train.txt"})
    besides, absent = (entry for entry in report.findings if "train.txt" in entry.title)
    assert [case.text for case in besides.cases] == ["'1'", "'2'"]
    assert [(case.text, case.where) for case in absent.cases] == [("'7'", f"{tmp_path / 'train.txt'}, line 2")]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 63), max_size=9)), max_size=12),
)
def test_near_links_join_what_brute_force_joins(base, flips):
    hashes = [*base, *(base[place % len(base)] ^ sum(1 << bit for bit in bits) for place, bits in flips if base)]
    for distance in (0, 3, 6):
        wanted = [
            (i, j)
            for i in range(len(hashes))
            for j in range(i + 1, len(hashes))
            if (hashes[i] ^ hashes[j]).bit_count() <= distance
        ]
        links = near_links(np.array(hashes, np.uint64), distance, lambda one, other: True)
        assert set(links) <= set(wanted)
        assert sorted(groups(links)) == sorted(groups(wanted))


def test_pictures_of_one_hash_that_are_not_alike_are_not_linked():
    hashes = np.array([7, 7, 7, 7, 6], np.uint64)
    assert near_links(hashes, 1, lambda one, other: (one - other) % 2 == 0) == [(0, 2), (0, 4), (1, 3)]


def test_thousands_of_copies_are_one_group():
    assert len(near_links(np.zeros(20_000, np.uint64), 6, lambda one, other: True)) == 19_999


def test_pairs_are_joined_into_groups():
    assert groups([(1, 2), (5, 6), (2, 9), (8, 6)]) == [[1, 2, 9], [5, 6, 8]]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog!", "LATIN"),
        ("Tuxedos में दो छोटे लड़के।", "DEVANAGARI"),
        ("狗ABC跑步", "CJK"),
        ("ｆｕｌｌ", "LATIN"),
        ("собака", "CYRILLIC"),
        ("12 !", None),
    ],
)
def test_the_script_of_a_text_is_that_of_most_letters(text, script):
    assert next(iter(scripts_of(text).most_common(1)), (None,))[0] == script


def test_captions_in_a_told_language_are_held_to_its_script(tmp_path):
    saved(scene(0), tmp_path / "a.png")
    for language, text in (("hi", "two boys"), ("ru", "собака"), ("xx", "собака\nсобака бежит\ndog")):
        (tmp_path / f"a.{language}.txt").write_text(text)
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if "script" in entry.title)
    assert [re.search("in (hi|ru|xx), '(.*)' is written in Latin", case.text).groups() for case in entry.cases] == [
        ("hi", "two boys"),
        ("xx", "dog"),
    ]


def test_a_caption_is_told_with_the_line_that_it_stands_on(tmp_path):
    saved(scene(0), tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,caption\na.png,a red wall\na.png,wall\n")
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if entry.title == "captions of one word")
    assert entry.cases[0].where == f"{tmp_path / 'captions.csv'}, line 3"


def test_a_script_can_be_told_for_captions_whose_language_is_not(tmp_path):
    saved(scene(0), tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a dog")
    assert not [entry for entry in check_data(str(tmp_path)).findings if "script" in entry.title]
    (entry,) = (entry for entry in check_data(str(tmp_path), language="zh-TW").findings if "script" in entry.title)
    assert "is written in Latin" in entry.cases[0].text


def test_the_command_line_checks_shows_and_converts(spoilt, tmp_path, capsys):
    page = tmp_path / "check.html"
    assert main(["check", str(spoilt), "--html", str(page), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == 4
    assert report["images"] == {"train": 16, "test": 1, "val": 1}
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") > 15
    assert "the same picture in several splits: 1" in text

    assert main(["show", str(spoilt), str(tmp_path / "show.html"), "--count", "5", "--split", "train"]) == 0
    assert (tmp_path / "show.html").read_text().count('class="card"') == 5
    assert main(["show", str(spoilt), str(tmp_path / "none.html"), "--split", "dev"]) == 1
    assert not (tmp_path / "none.html").exists()
    assert "line 4 is no JSON" in capsys.readouterr().err

    assert main(["convert", str(spoilt), f"coco:{tmp_path}/coco"]) == 1
    assert not (tmp_path / "coco").exists()
    with pytest.raises(SystemExit):
        main(["show", str(spoilt), "x.html", "--count", "0"])
    assert main(["check", str(tmp_path / "nothing")]) == 1
    assert main(["check", str(spoilt), "--list", "train"]) == 1


def test_what_captions_say_is_shown_and_not_run(tmp_path):
    saved(scene(0), tmp_path / "d/a.png")
    (tmp_path / "d/a.txt").write_text("<script>alert(1)</script>")
    assert main(["show", str(tmp_path / "d"), str(tmp_path / "show.html")]) == 0
    text = (tmp_path / "show.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_examples_are_drawn_with_equal_probability():
    counts = np.zeros(10)
    for seed in range(3000):
        counts[sample_examples(range(10), 3, seed)] += 1
    # Each is drawn with probability 0.3: 900 of 3,000, standard deviation 25; five of them.
    assert abs(counts - 900).max() < 125


def test_a_picture_that_pillow_opens_late_is_broken_too(tmp_path):
    """A whole header with pixels cut off is found by decoding, not by its header."""
    file = io.BytesIO()
    scene(0).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue()[:-200])
    (tmp_path / "a.txt").write_text("a b")
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if entry.level == "error")
    assert entry.title == "pictures broken"
    (tmp_path / "a.txt").rename(tmp_path / "a.en.txt")
    with pytest.raises(DataError, match="no caption in 'zz'"):
        read_data(tmp_path, language="zz")
