"""The embedded checkpoint through the command line, and through the service as a separate process."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from corpus import draw_scene, judge
from evaluation import held_out_scenes, scene_pointing
from model import DEFAULT_CHECKPOINT, Captioner, load_checkpoint
from model.__main__ import main as model_main
from service import Settings
from service.__main__ import main as service_main
from tests.helpers import wait_until
from tests.test_process import SECONDS, posting

ROOT = Path(__file__).parent.parent
SCENE = ROOT / "docs/images/scene.png"


@pytest.fixture(scope="module")
def service():
    """Start `python -m service` on a free port of 127.0.0.1; send SIGTERM to it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "SIGHTLINE_THREADS": "1", "SIGHTLINE_DTYPE": "float32", "SIGHTLINE_DEADLINE_SECONDS": str(SECONDS),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "--port", str(port)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_ready(address, process), seconds=60)
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def is_ready(address: str, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    try:
        urllib.request.urlopen(f"{address}/readyz", timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def post(address: str, data: bytes, path: str = "/v1/captions", **headers: str) -> dict:
    request = urllib.request.Request(address + path, data=data, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_the_embedded_checkpoint_is_complete_small_and_has_a_full_card():
    files = [path for path in DEFAULT_CHECKPOINT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    assert all(path.stat().st_size <= 15_000_000 for path in files)
    checkpoint = load_checkpoint(DEFAULT_CHECKPOINT)
    for word in ("Flickr8k", "scenes", "CIDEr", "pointing", "Limits", "make default"):
        assert word in checkpoint.card, f"the card does not mention {word!r}"
    assert checkpoint.config.license


def test_the_image_of_the_readme_is_captioned_correctly_over_http(service):
    address, _ = service
    result = post(address, SCENE.read_bytes())
    caption = result["captions"][0]
    assert judge(caption["text"], draw_scene(2026, 26)).right, caption["text"]
    for word in caption["words"]:
        assert caption["text"][word["start"] : word["end"]] == word["text"]
        assert sum(word["map"]["values"]) == pytest.approx(1, abs=1e-3)
        assert min(word["map"]["values"]) >= 0
    nouns = [word for word in caption["words"] if word["text"] in {entry.shape for entry in draw_scene(2026, 26).objects}]
    assert len(nouns) == len(draw_scene(2026, 26).objects)


def test_an_explained_caption_has_the_figures_of_the_generated_one(service):
    address, _ = service
    generated = post(address, SCENE.read_bytes())["captions"][0]
    query = urllib.parse.urlencode({"caption": generated["text"]})
    explained = post(address, SCENE.read_bytes(), f"/v1/explanations?{query}")["captions"][0]
    assert generated["finish_reason"] == "stop"
    assert explained["text"] == generated["text"]
    assert explained["log_probability"] == pytest.approx(generated["log_probability"], abs=1e-4)
    for word, other in zip(explained["words"], generated["words"], strict=True):
        assert word["map"]["values"] == pytest.approx(other["map"]["values"], abs=1e-5)
        assert word["image_reliance"] == pytest.approx(other["image_reliance"], abs=1e-4)


def test_object_words_of_synthetic_scenes_point_into_their_masks():
    figures = scene_pointing(Captioner.load(dtype="float32"), held_out_scenes(24))
    assert figures.pointing > figures.center + 0.3
    assert figures.pointing > (figures.other or 0) + 0.3


def test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0(service):
    address, process = service
    with posting(int(address.rpartition(":")[2])) as statuses:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0, "the listener closes by itself"
    assert set(statuses) == {200}


def test_images_are_captioned_from_the_command_line(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    with Image.open(SCENE) as image:
        image.save(folder / "a.jpg", quality=95)
    (folder / "b.png").write_bytes(b"not an image")
    (folder / "notes.md").write_text("another kind of file")

    status = model_main(["caption", "--dtype", "float32", "--overlays", str(tmp_path / "sheets"), str(folder)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert status == 1, "one image is broken"
    assert [Path(line["file"]).name for line in lines] == ["a.jpg"]
    assert lines[0]["words"][0].keys() == {"text", "start", "end", "probability", "image_reliance", "box"}
    with Image.open(tmp_path / "sheets/a.jpg.png") as sheet:
        assert sheet.width > 400


def test_a_command_that_cannot_run_reports_the_reason(tmp_path, capsys):
    assert model_main(["caption", "--checkpoint", str(tmp_path), str(SCENE)]) == 1
    assert "config.json" in capsys.readouterr().err


def test_sheets_of_folders_are_in_folders_and_two_images_never_write_the_same(tmp_path, capsys):
    for name in ("one/a.png", "two/a.png", "two/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SCENE.read_bytes())
    one, two = str(tmp_path / "one/a.png"), str(tmp_path / "two/a.png")
    assert model_main(["caption", "--overlays", str(tmp_path / "sheets"), one, two]) == 1
    assert "a.png.png" in capsys.readouterr().err
    assert model_main(["caption", "--dtype", "float32", "--overlays", str(tmp_path / "sheets"), str(tmp_path)]) == 0
    sheets = {str(path.relative_to(tmp_path / "sheets")) for path in (tmp_path / "sheets").rglob("*.png")}
    assert sheets == {"one/a.png.png", "two/a.png.png", "two/a.jpg.png"}


def test_show_prints_the_config_and_the_card(capsys):
    assert model_main(["show", str(DEFAULT_CHECKPOINT)]) == 0
    out = capsys.readouterr().out
    assert '"parameters":' in out
    assert "Limits" in out


@pytest.fixture
def own_log(monkeypatch):
    """Undo the configuration of the log that the service's command makes."""
    level = logging.getLogger().level
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    yield
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("own_log")
def test_a_service_that_cannot_start_reports_the_reason(capsys):
    assert service_main(["--checkpoint", "missing"]) == 1
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--checkpoint", "missing"], "is not a folder", marks=pytest.mark.slow),  # it loads torch first
        (["--port", "99999"], "port is '99999'"),
    ],
)
def test_a_process_that_cannot_start_ends_with_the_reason(arguments, message):
    command = [sys.executable, "-m", "service", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_lists_every_setting():
    result = subprocess.run([sys.executable, "-m", "service", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "SIGHTLINE_<NAME>" in result.stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in result.stdout
