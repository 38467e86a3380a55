"""`python -m model caption`: every image exactly once, no text of a person replaced, no file skipped silently."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from model import CaptionerError, save_checkpoint
from model.__main__ import main
from model.files.listing import list_images
from model.files.progress import progress_line
from model.files.xmp import new_xmp, with_description
from tests.helpers import wait_until
from tests.odd_images import damaged, encoded, photo_like
from tests.test_process import ROOT

DC = "{http://purl.org/dc/elements/1.1/}"


@pytest.fixture(scope="module")
def checkpoint(tiny_captioner, tmp_path_factory) -> str:
    """Return the folder of a checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    network = tiny_captioner.runtime
    save_checkpoint(folder, tiny_captioner.config, network.state_dict(), tiny_captioner.tokenizer, "# A tiny card")
    return str(folder)


@pytest.fixture
def run(checkpoint, capsys):
    """Return a function that runs the command and returns its exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main(["caption", "--checkpoint", checkpoint, "--dtype", "float32", *map(str, arguments)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of three images."""
    path = tmp_path / "images"
    write(path, "b.jpg", "a.png", "sub/c.webp")
    return path


def write(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo_like(40 + number, 30).save(path)


def texts(folder: Path, suffix: str = ".txt") -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob(f"*{suffix}")}


def names_of(lines: str) -> list[str]:
    return [Path(json.loads(line)["file"]).name for line in lines.splitlines()]


def test_a_text_that_exists_is_left_alone_unless_overwrite_is_named(run, folder):
    (folder / "a.txt").write_text("by hand")
    status, out, err = run("--sidecar", folder)
    assert (status, out) == (0, "")
    assert "2 captioned, 1 had their captions already" in err
    first = texts(folder)
    assert first.keys() == {"a.txt", "b.txt", "sub/c.txt"}
    assert first["a.txt"] == "by hand"
    assert run("--sidecar", folder)[2].startswith("0 captioned, 3 had"), "and the network is not even loaded"
    assert run("--sidecar", "--overwrite", folder)[0] == 0
    assert texts(folder)["a.txt"] != "by hand"
    assert {name: text for name, text in texts(folder).items() if name != "a.txt"} == {
        name: text for name, text in first.items() if name != "a.txt"
    }


def test_trigger_words_are_written_around_every_caption(run, folder):
    run("--sidecar", folder)
    plain = texts(folder)
    run("--sidecar", "--extension", "caption", "--prefix", "sks style,", "--suffix", ", high quality", folder)
    assert texts(folder, ".caption") == {
        name.replace(".txt", ".caption"): f"sks style, {text[:-1]}, high quality\n" for name, text in plain.items()
    }
    assert texts(folder) == plain
    _, out, _ = run("--prefix", "sks", "--suffix", "outside", folder / "a.png")
    record = json.loads(out)
    assert record["text"] == f"sks {plain['a.txt'][:-1]} outside"
    for word in record["words"]:
        assert record["text"][word["start"] : word["end"]] == word["text"]


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv"])
def test_a_table_is_continued_and_has_every_image_once(name, run, folder, tmp_path):
    table = tmp_path / name
    assert run("--output", table, folder)[0] == 0
    complete = table.read_bytes()
    header = 1 if name.endswith("csv") else 0
    lines = complete.splitlines(keepends=True)
    assert len(lines) == header + 3
    for kept in (b"".join(lines[: header + 1]), b"".join(lines[: header + 1]) + lines[header + 1][:-9], b"", b'{"fi'):
        table.write_bytes(kept)
        assert run("--output", table, folder)[0] == 0
        assert table.read_bytes() == complete, "also if the last record was cut off"
    write(folder, "d\u2028\x85.png")  # a separator of lines for Python, and for neither format
    assert "1 captioned, 3 had" in run("--output", table, folder)[2]
    assert table.read_bytes().startswith(complete)
    assert "0 captioned, 4 had" in run("--output", table, folder)[2]


def test_a_file_of_something_else_is_never_written_over(run, folder, tmp_path):
    for name, content in (
        ("o.jsonl", b'{"name": 1}\n'),
        ("o.jsonl", b"my notes\n"),
        ("o.csv", b"a,b\n1,2\n"),
        ("o.csv", b"\xff\n"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        status, _, err = run("--output", path, folder)
        assert status == 1
        assert "exists and cannot be continued" in err
        assert path.read_bytes() == content
    assert run("--output", path, "--overwrite", folder)[0] == 0


def test_csv_has_file_and_caption_and_the_words_only_where_requested(run, folder, tmp_path):
    run("--output", tmp_path / "a.csv", folder)
    run("--output", tmp_path / "b.csv", "--words", folder)
    run("--output", tmp_path / "c.csv", "--num-beams", 3, "--num-return-sequences", 2, folder)
    rows = {name: list(csv.DictReader(io.StringIO((tmp_path / f"{name}.csv").read_text()))) for name in "abc"}
    assert [list(rows[name][0]) for name in "abc"] == [
        ["file", "caption"],
        ["file", "caption", "words"],
        ["file", "caption_0", "caption_1"],
    ]
    for plain, with_words in zip(rows["a"], rows["b"], strict=True):
        assert plain["caption"] == with_words["caption"]
        assert [word["text"] for word in json.loads(with_words["words"])]
    assert all(row["caption_1"] for row in rows["c"])


def test_several_captions_of_an_image_are_lines_of_its_text(run, folder):
    run("--sidecar", "--num-beams", 3, "--num-return-sequences", 2, folder)
    assert {len(text.splitlines()) for text in texts(folder).values()} == {2}
    _, out, _ = run("--num-beams", 3, "--num-return-sequences", 2, folder / "a.png")
    assert json.loads(out)["captions"] == texts(folder)["a.txt"].splitlines()


def test_everything_that_is_not_captioned_is_listed_with_its_reason(run, folder, tmp_path):
    (folder / "broken.png").write_bytes(damaged(encoded(photo_like()), 9_000))
    (folder / "phone.jxl").write_bytes(b"\xff\x0a" + bytes(30))
    (folder / "camera.nef").write_bytes(encoded(photo_like(), "TIFF"))
    (folder / "notes.md").write_text("x")
    (folder / "no suffix").write_bytes(encoded(photo_like()))
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.png").write_bytes(encoded(photo_like()))
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "sub", target_is_directory=True)
    status, out, err = run(folder, tmp_path / "missing.jpg")
    assert status == 1
    assert names_of(out) == ["a.png", "b.jpg", "no suffix", "c.webp"]
    for name, reason in {
        "broken.png": "cannot be decoded",
        "phone.jxl": "JPEG XL",
        "camera.nef": "not read; convert",
        "notes.md": "not an image",
        "clip.mp4": "a video",
        "missing.jpg": "no such file",
        "pipe": "not a regular file",
        "link": "linked folder",
    }.items():
        assert any(f"{name}: " in line and reason in line for line in err.splitlines()), (name, err)
    assert "4 captioned" in err
    assert "4 not images" in err
    assert "4 not captioned" in err
    assert "hidden" not in err
    assert "._a" not in err


def test_a_pair_that_would_write_one_text_is_reported_and_the_rest_captioned(run, folder):
    write(folder, "a.jpg")
    status, _, err = run("--sidecar", folder)
    assert status == 1
    assert texts(folder).keys() == {"b.txt", "sub/c.txt"}
    assert "a.jpg and" not in err.splitlines()[0]
    assert err.count("would both write") == 2
    (folder / "b.txt").unlink()
    (folder / "b.txt").write_bytes(encoded(photo_like()))
    assert run("--sidecar", "--overwrite", folder / "b.jpg", folder / "b.txt")[0] == 1
    assert (folder / "b.txt").read_bytes() == encoded(photo_like()), "an image is never written over"


def test_file_names_of_any_bytes_and_length_are_captioned_or_reported(run, tmp_path):
    folder = tmp_path / "images"
    write(folder, "y" * 251 + ".jpg", "z" * 250 + ".png")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(encoded(photo_like(), "JPEG"))
    table = tmp_path / "o.jsonl"
    assert run("--sidecar", "--output", table, folder)[0] == 0
    assert len(list(folder.glob("*.txt"))) == 3
    assert not list(folder.glob(".*")), "no partial file is left"
    assert names_of(table.read_text())[0] == "caf\\xe9.jpg"
    assert run("--sidecar", "--output", table, folder)[2].startswith("0 captioned, 3 had")
    assert run(folder)[1].count("\n") == 3
    status, _, err = run("--xmp", folder)
    assert status == 1
    assert err.count("would be too long; rename it") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--extension", "txt"], "add --sidecar"),
        (["--words"], "--words adds a column"),
        (["--words", "--output", "o.jsonl"], "--words adds a column"),
        (["--json", "--sidecar"], "--json is for standard output"),
        (["--overwrite"], "add one of them"),
        (["--output", "o.xml"], "must end in .jsonl or .csv"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--num-beams", "9"], "num_beams is 9"),
    ],
)
def test_an_option_that_would_be_ignored_is_an_error(arguments, message, run, folder):
    status, out, err = run(*arguments, folder)
    assert (status, out) == (2, "")
    assert message in err


def test_a_folder_without_images_is_reported(run, tmp_path):
    (tmp_path / ".hidden").mkdir()
    write(tmp_path, ".hidden/x.png")
    status, out, err = run(tmp_path)
    assert (status, out) == (1, "")
    assert "no images" in err


def test_truncated_images_are_captioned_if_that_is_accepted_and_listed(run, folder):
    (folder / "cut.jpg").write_bytes(encoded(photo_like(), "JPEG")[:-2])
    status, out, err = run(folder)
    assert status == 1
    assert "cut.jpg" not in out
    assert "--accept-truncated captions what can be decoded" in err
    status, out, err = run("--accept-truncated", folder)
    assert status == 0
    assert "cut.jpg" in out
    assert "1 truncated or damaged" in err


def test_captions_become_the_description_of_xmp_files(run, folder):
    existing = new_xmp("by hand")
    (folder / "a.png.xmp").write_bytes(existing)
    run("--sidecar", "--xmp", folder)
    assert (folder / "a.png.xmp").read_bytes() == existing
    document = ElementTree.parse(folder / "b.jpg.xmp")
    assert [item.text for item in document.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")] == [
        texts(folder)["b.txt"].rstrip("\n")
    ]


def test_an_edited_xmp_file_keeps_everything_but_its_description():
    document = b"""<?xpacket begin="\xef\xbb\xbf" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
      xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
      xmlns:darktable="http://darktable.sf.net/" darktable:history="exposure +1" dc:description="old">
      <dc:title>T</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"""
    once = with_description(document, 'a <dog> & "cat"')
    root = ElementTree.fromstring(with_description(once, "a bus"))
    block = next(root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"))
    assert block.attrib["{http://darktable.sf.net/}history"] == "exposure +1"
    assert block.findtext(f"{DC}title") == "T"
    assert ["".join(entry.itertext()) for entry in root.iter(f"{DC}description")] == ["a bus"]
    assert b"darktable:history" in once, "prefixes stay as they were"
    assert "".join(ElementTree.fromstring(once).itertext()).split("T")[1].strip() == 'a <dog> & "cat"'
    for broken in (b"not xml", b"<a/>"):
        with pytest.raises(CaptionerError, match="XMP file beside the image"):
            with_description(broken, "x")


def test_folders_are_listed_in_a_stable_order_and_each_image_once(folder):
    names = [str(file.name) for file in list_images([folder, folder / "a.png", folder]).images]
    assert names == ["a.png", "b.jpg", "sub/c.webp"]


def test_progress_has_rate_and_time_left():
    assert progress_line(20, 50, 1, 10.0) == "20 of 50 images, 1 failed, 2.0 per second, 15 s left"
    assert progress_line(0, 50, 0, 0.0).endswith("? left")
    assert "50 min left" in progress_line(100, 3100, 0, 100.0)


def test_a_killed_command_goes_on_with_every_image_exactly_once(checkpoint, run, tmp_path):
    images, table = tmp_path / "images", tmp_path / "o.jsonl"
    names = [f"{number:03}" for number in range(60)]
    write(images, *(f"{name}.jpg" for name in names))
    (images / "007.txt").write_text("by hand")
    outputs = ["--sidecar", "--output", str(table), str(images)]
    command = [sys.executable, "-m", "model", "caption", "--checkpoint", checkpoint, "--dtype", "float32", "--batch-size", "1"]
    process = subprocess.Popen([*command, *outputs], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(images.glob("*.txt"))) >= 6 or process.poll() is not None, seconds=120)
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert run(*outputs)[0] == 0
    assert names_of(table.read_text()) == [f"{name}.jpg" for name in names]
    assert texts(images).keys() == {f"{name}.txt" for name in names}
    assert all(text.endswith("\n") for name, text in texts(images).items() if name != "007.txt"), "none is half-written"
    assert (images / "007.txt").read_text() == "by hand"
