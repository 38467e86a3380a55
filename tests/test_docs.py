"""What the docs say is so: every command of the README runs or exists, links lead somewhere, settings and options are listed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands of the README that other tests run (with a smaller load), and those that only `make test-all` or CI can.
RUN_ELSEWHERE = {
    "make serve": "test_end_to_end.py starts python -m service",
    "make test": "this is it",
    "make test-all": "the same with slow tests",
    "docker build -t sightline .": "needs an engine",
    "docker run --rm -p 8000:8000 sightline": "needs an engine",
    "docker run --rm -p 8000:8000 -v $PWD/runs/mine/best:/mine:ro -e SIGHTLINE_CHECKPOINT=/mine sightline": "needs an engine",
    "docker run --rm -p 8000:8000 -v captions:/cache -e SIGHTLINE_CHECKPOINT="
    "hub:Salesforce/blip-image-captioning-base sightline": ("needs an engine"),
    "curl --data-binary @docs/pictures/scene.png localhost:8000/v1/captions": "test_the_readmes_curl_line_works",
    "python train.py --data captions_train.json --run runs/mine": "test_training.py, smaller",
    "python -m corpus check captions_train.json --html check.html": "test_check.py",
    "python -m evaluation captions --data captions_val.json --split val --checkpoint runs/mine/best --out runs/figures": (
        "test_compare.py"
    ),
    "python -m service --checkpoint runs/mine/best": "test_end_to_end.py, another checkpoint",
    ".venv/bin/python -m model convert Salesforce/blip-image-captioning-base runs/blip": "test_hub.py, a hub on 127.0.0.1",
    ".venv/bin/python -m service --checkpoint runs/blip": "test_convert.py, tiny folders",
}


def commands(text: str) -> list[str]:
    """Return the command lines of the sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def run(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    words = command.split()
    words[0] = sys.executable if Path(words[0]).name == "python" else words[0]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_the_readme_gives_the_two_commands():
    assert {"make serve", "make test"} <= set(commands(README))


@pytest.mark.parametrize("command", [c for c in commands(README) if c not in RUN_ELSEWHERE])
def test_every_other_command_of_the_readme_runs(command):
    found = run(command)
    assert found.returncode == 0, found.stderr


def test_the_readmes_curl_line_works(tiny_captioner):
    import socket
    import threading
    import time

    import uvicorn

    from service import Settings, create_app

    if shutil.which("curl") is None:
        pytest.fail("curl is not installed; the README needs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app({"tiny": tiny_captioner}, Settings()), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(200):
            if server.started:
                break
            time.sleep(0.05)
        line = next(command for command in commands(README) if command.startswith("curl"))
        found = run(line.replace("localhost:8000", f"127.0.0.1:{port}") + " --silent --fail --noproxy *")
        assert found.returncode == 0, found.stderr
        assert '"captions"' in found.stdout
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def test_every_make_target_that_the_docs_name_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"serve", "test"} <= named
    for target in named:
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_tree_of_the_readme_names_every_file():
    tree = README.split("## The tree")[1].split("```")[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = Path(name)
        if path.name == "__init__.py" or path.parts[0] == "tests" or path.suffix in (".md", ".svg", ".png"):
            continue
        if path.parts[:2] == ("model", "default") or len(path.parts) == 1:
            continue
        assert re.search(rf"(?m)^ *(?:\S+/)?{re.escape(path.name)} ", tree), f"{name} is not in the README's tree"
    for top in sorted({name.split("/")[0] for name in tracked}):
        assert top in tree, f"{top} is not in the README's tree"


def test_every_python_module_that_the_docs_run_exists():
    for page in PAGES:
        for name in re.findall(r"python -m ([a-z_.]+)", page.read_text(encoding="utf-8")):
            path = ROOT / name.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {name}"


def test_every_setting_option_and_problem_is_documented():
    from service import Settings
    from service.errors import ERRORS
    from service.http.dialects.native.schemas import CaptionOptions

    page = (ROOT / "docs/service.md").read_text(encoding="utf-8")
    for name in [*Settings.model_fields, *CaptionOptions.model_fields, *ERRORS]:
        assert re.search(rf"\b{name}\b", page), name


def test_nothing_committed_names_a_place_outside_the_project():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".png", ".safetensors") or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|root|home|opt|var/tmp)/", text), name


@pytest.mark.slow
def test_a_short_training_of_the_readmes_kind_runs(tmp_path):
    found = run(f"python train.py --data scenes:64 --run {tmp_path}/run --max-steps 3 --eval-images 8")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "run/best/config.json").exists()
