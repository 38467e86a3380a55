"""The check of data: its findings name the file and the line, and the pages show the images."""

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
from corpus.duplicates import connected_groups, near_links
from corpus.pages import sample_examples


def random_image(seed, size=(160, 120)):
    """Return an image of random rectangles; different seeds give images that are not alike."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(map(int, rng.integers(0, 256, 3))))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(part) for part in rng.integers(0, 100, 4))
        draw.rectangle((x, y, x + w, y + h), tuple(map(int, rng.integers(0, 256, 3))))
    return image


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def problem_data(tmp_path):
    """Write six valid images, and one for every kind of finding."""
    exif = Image.Exif()
    exif[0x0112] = 6
    images = tmp_path / "images"
    for number in range(6):
        save(random_image(number), images / f"{number}.png")
    save(random_image(0), images / "leak.png")
    save(random_image(1), images / "twice.png")
    save(random_image(2).resize((200, 150)), images / "near.jpg", quality=60)
    save(random_image(3).resize((80, 60)), images / "near_leak.webp")
    save(random_image(20, (40, 200)), images / "thin.png")
    save(random_image(21), images / "phone.jpg", exif=exif)
    save(Image.new("RGB", (100, 100), "gray"), images / "blank1.png")
    save(Image.new("RGB", (90, 100), "gray"), images / "blank2.png")
    save(Image.new("L", (10_000, 6_000)), images / "huge.png")
    (images / "broken.jpg").write_bytes((images / "phone.jpg").read_bytes()[:700])
    (images / "text.png").write_text("not an image")
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
    records = []
    for path in [*sorted(images.iterdir()), images / "gone.jpg"]:
        texts = captions.get(path.stem, [f"an image of {path.stem} things"])
        records.append(
            {
                "file_name": f"images/{path.name}",
                "image_id": path.stem,
                "captions": texts,
                "split": splits.get(path.stem, "train"),
            }
        )
    lines = [json.dumps(record) for record in records]
    lines.insert(3, "{not json")
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path


def line_of(folder, image_id):
    lines = (folder / "metadata.jsonl").read_text().split("\n")
    return 1 + next(number for number, line in enumerate(lines) if f'"image_id": "{image_id}"' in line)


EXPECTED = {
    "missing images": ("error", ["gone"]),
    "broken images": ("error", ["broken", "text"]),
    "identical images in several splits": ("error", ["0"]),
    "near-duplicate images in several splits": ("warning", ["3"]),
    "identical images in one split": ("warning", ["1"]),
    "near-duplicate images in one split": ("warning", ["2"]),
    "blank images": ("warning", ["blank1", "blank2", "huge"]),
    "tiny images, an edge under 64 pixels": ("warning", ["near_leak", "thin"]),
    "huge images, over 50 million pixels": ("warning", ["huge"]),
    "extreme aspect ratios, over 4 to 1": ("warning", ["thin"]),
    "captions in another script than their language": ("warning", ["3"]),
    "captions without a letter or digit": ("warning", ["thin"]),
    "images without captions": ("warning", ["1", "5"]),
    "captions of more than 60 words": ("warning", ["4"]),
    "captions that an image has twice": ("warning", ["0"]),
    "images rotated by EXIF": ("note", ["phone"]),
    "captions of one word": ("note", ["2"]),
}


def test_every_finding_names_the_file_and_the_line_of_its_cases(problem_data):
    report = check_data(str(problem_data))

    findings = {entry.title: entry for entry in report.findings}
    for title, (level, images) in EXPECTED.items():
        origins = [case.origin for case in findings[title].cases]
        assert findings[title].level == level
        assert origins == [f"{problem_data / 'metadata.jsonl'}, line {line_of(problem_data, image)}" for image in images], title
    (record,) = findings["unreadable records"].cases
    assert re.search(r"metadata.jsonl, line 4 is not JSON", record.text)
    assert set(findings) - set(EXPECTED) == {"unreadable records", "images have different numbers of captions"} | (
        {"mixed capitals and full stops"} & set(findings)
    )
    assert [entry.level for entry in report.findings] == sorted(
        (entry.level for entry in report.findings), key=["error", "warning", "note"].index
    )


def test_valid_data_has_no_errors(tmp_path):
    for number in range(25):
        save(random_image(number), tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"image number {number}\n")
    report = check_data(str(tmp_path))
    assert [entry.title for entry in report.findings] == ["all images have the same size"]
    assert "all 25 images are 160 x 120" in report.findings[0].cases[0].text
    assert "25 images (train 25), 25 captions (unknown language 25)" in report.to_text()
    assert report.to_text().endswith("no errors")


def test_differences_from_an_official_list_are_reported(tmp_path):
    for number in range(3):
        save(random_image(number), tmp_path / "d" / f"{number}.png")
        (tmp_path / "d" / f"{number}.txt").write_text("a b c")
    (tmp_path / "train.txt").write_text("0.png\n7.png\n")
    report = check_data(str(tmp_path / "d"), lists={"train": tmp_path / "train.txt"})
    unlisted, absent = (entry for entry in report.findings if "train.txt" in entry.title)
    assert [case.text for case in unlisted.cases] == ["'1'", "'2'"]
    assert [(case.text, case.origin) for case in absent.cases] == [("'7'", f"{tmp_path / 'train.txt'}, line 2")]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 63), max_size=9)), max_size=12),
)
def test_near_links_connect_the_same_groups_as_brute_force(base, flips):
    hashes = [*base, *(base[index % len(base)] ^ sum(1 << bit for bit in bits) for index, bits in flips if base)]
    for distance in (0, 3, 6):
        expected = [
            (i, j)
            for i in range(len(hashes))
            for j in range(i + 1, len(hashes))
            if (hashes[i] ^ hashes[j]).bit_count() <= distance
        ]
        links = near_links(np.array(hashes, np.uint64), distance, lambda one, other: True)
        assert set(links) <= set(expected)
        assert sorted(connected_groups(links)) == sorted(connected_groups(expected))


def test_images_with_equal_hashes_that_are_not_alike_are_not_linked():
    hashes = np.array([7, 7, 7, 7, 6], np.uint64)
    assert near_links(hashes, 1, lambda one, other: (one - other) % 2 == 0) == [(0, 2), (0, 4), (1, 3)]


def test_copies_of_an_image_give_one_link_each():
    assert len(near_links(np.zeros(20_000, np.uint64), 6, lambda one, other: True)) == 19_999


def test_connected_pairs_are_one_group():
    assert connected_groups([(1, 2), (5, 6), (2, 9), (8, 6)]) == [[1, 2, 9], [5, 6, 8]]


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


def test_captions_with_a_language_must_be_in_its_script(tmp_path):
    save(random_image(0), tmp_path / "a.png")
    for language, text in (("hi", "two boys"), ("ru", "собака"), ("xx", "собака\nсобака бежит\ndog")):
        (tmp_path / f"a.{language}.txt").write_text(text)
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if "script" in entry.title)
    assert [re.search("in (hi|ru|xx), '(.*)' is written in Latin", case.text).groups() for case in entry.cases] == [
        ("hi", "two boys"),
        ("xx", "dog"),
    ]


def test_a_finding_about_a_caption_names_its_line(tmp_path):
    save(random_image(0), tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,caption\na.png,a red wall\na.png,wall\n")
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if entry.title == "captions of one word")
    assert entry.cases[0].origin == f"{tmp_path / 'captions.csv'}, line 3"


def test_the_language_option_applies_to_captions_without_a_language(tmp_path):
    save(random_image(0), tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a dog")
    assert not [entry for entry in check_data(str(tmp_path)).findings if "script" in entry.title]
    (entry,) = (entry for entry in check_data(str(tmp_path), language="zh-TW").findings if "script" in entry.title)
    assert "is written in Latin" in entry.cases[0].text


def test_the_command_line_checks_shows_and_converts(problem_data, tmp_path, capsys):
    page = tmp_path / "check.html"
    assert main(["check", str(problem_data), "--html", str(page), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == 4
    assert report["images"] == {"train": 16, "test": 1, "val": 1}
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") > 15
    assert "identical images in several splits: 1" in text

    assert main(["show", str(problem_data), str(tmp_path / "show.html"), "--count", "5", "--split", "train"]) == 0
    assert (tmp_path / "show.html").read_text().count('class="card"') == 5
    assert main(["show", str(problem_data), str(tmp_path / "none.html"), "--split", "dev"]) == 1
    assert not (tmp_path / "none.html").exists()
    assert "line 4 is not JSON" in capsys.readouterr().err

    assert main(["convert", str(problem_data), f"coco:{tmp_path}/coco"]) == 1
    assert not (tmp_path / "coco").exists()
    with pytest.raises(SystemExit):
        main(["show", str(problem_data), "x.html", "--count", "0"])
    assert main(["check", str(tmp_path / "missing")]) == 1
    assert main(["check", str(problem_data), "--list", "train"]) == 1


def test_html_in_captions_is_escaped(tmp_path):
    save(random_image(0), tmp_path / "d/a.png")
    (tmp_path / "d/a.txt").write_text("<script>alert(1)</script>")
    assert main(["show", str(tmp_path / "d"), str(tmp_path / "show.html")]) == 0
    text = (tmp_path / "show.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_examples_are_sampled_with_equal_probability():
    counts = np.zeros(10)
    for seed in range(3000):
        counts[sample_examples(range(10), 3, seed)] += 1
    # Each is sampled with probability 0.3: 900 of 3,000, standard deviation 25; the tolerance is five of them.
    assert abs(counts - 900).max() < 125


def test_an_image_with_truncated_pixels_is_broken(tmp_path):
    """The header is complete, so only decoding detects the error."""
    file = io.BytesIO()
    random_image(0).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue()[:-200])
    (tmp_path / "a.txt").write_text("a b")
    (entry,) = (entry for entry in check_data(str(tmp_path)).findings if entry.level == "error")
    assert entry.title == "broken images"
    (tmp_path / "a.txt").rename(tmp_path / "a.en.txt")
    with pytest.raises(DataError, match="no caption in 'zz'"):
        read_data(tmp_path, language="zz")
