"""The commands of docs/training.md, "From a folder of images to a served model", word for word in a folder of their own."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.docs_tables import DOCS
from tests.runs import lines_of, write_images
from tests.test_convert import saved
from training import load_state

ROOT = Path(__file__).parent.parent
TITLE = "## From a folder of images to a served model"


def documented_commands() -> list[str]:
    """Return the commands of the section."""
    section = (DOCS / "training.md").read_text(encoding="utf-8").split(TITLE)[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return block.strip().splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the repository's root, with 200 images, a table of their captions, and a tiny BLIP."""
    for name in ("train.py", "model", "corpus", "training", "evaluation", "benchmarks", "report", "service"):
        (tmp_path / name).symlink_to(ROOT / name)
    subjects = ("dog", "cat", "horse", "bird")
    table = write_images(tmp_path / "photos", 200)
    lines = ["image,caption", *(f"{n}.png,a {subjects[n % 4]} number {n} on the grass" for n in range(200))]
    table.write_text("\n".join(lines) + "\n")
    (tmp_path / "photos/0.jpg").write_bytes((tmp_path / "photos/0.png").read_bytes())  # the content decides, not the name
    saved("blip", tmp_path / "blip")
    return tmp_path


@pytest.mark.slow
def test_the_documented_commands_train_resume_evaluate_and_serve(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands, service = documented_commands(), None
    assert [command.split()[2] for command in commands[:2]] == ["model", "corpus"]
    try:
        for command in commands:
            words = shlex.split(command.replace("8000", port))
            words[0] = sys.executable if words[0] == "python" else words[0]
            if "service" in words:
                service = subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
                wait_for(f"http://127.0.0.1:{port}/readyz", service)
                continue
            if words[0] == "curl":
                words[1:1] = ["--silent", "--noproxy", "*", "--ipv4"]
            result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
            assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        assert '"captions"' in result.stdout
        assert '"words"' in result.stdout
    finally:
        if service is not None:
            service.terminate()
            service.wait(timeout=60)
    run = folder / "runs/photos"
    assert load_state(run).settings["lora_rank"] == 16
    assert load_state(run).progress.is_finished
    scores = [row["CIDEr"] for row in lines_of(run) if "validation" in row]
    assert len(scores) > 5
    losses = [row["loss"] for row in lines_of(run) if "loss" in row]
    assert losses[-1] < losses[0]


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a service answers. Raises AssertionError if it ends, or after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the service did not become ready")
