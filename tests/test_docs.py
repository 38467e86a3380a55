"""The documentation is true: commands run or exist, links lead to files, tables equal the declarations they come from."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvicorn

from service import Settings, create_app
from tests.docs_tables import DOCS, tables, with_table
from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands of the README that other tests run (with less load), and those that need a container engine or a GPU.
RUN_ELSEWHERE = {
    "make serve": "test_end_to_end.py starts python -m service",
    "make test": "this is it",
    "docker build -t sightline .": "needs an engine",
    "docker run --rm -p 8000:8000 sightline": "needs an engine",
    "docker run --rm -p 8000:8000 -v $PWD/runs/mine/best:/mine:ro -e SIGHTLINE_CHECKPOINT=/mine sightline": "needs an engine",
    "docker run --rm -p 8000:8000 -v captions:/cache -e SIGHTLINE_CHECKPOINT="
    "hub:Salesforce/blip-image-captioning-base sightline": "needs an engine",
    "docker build --build-arg TORCH_INDEX= -t sightline:gpu .": "needs an engine",
    "docker run --rm --gpus all -p 8000:8000 sightline:gpu": "needs a GPU",
    "curl --data-binary @docs/images/scene.png localhost:8000/v1/captions": "test_the_readmes_curl_command_works",
    "python train.py --data captions.csv --run runs/mine --init model/default": "test_odd_runs.py, smaller",
    "python -m corpus check captions.csv --html runs/check.html": "test_check.py",
    "python -m evaluation captions --data captions.csv --validation-ids runs/mine/validation_ids.txt --checkpoint "
    "runs/mine/best": "test_odd_runs.py, smaller",
    ". .venv/bin/activate": "a shell",
    "python -m service --checkpoint runs/mine/best": "test_end_to_end.py, another checkpoint",
    ".venv/bin/python -m model convert Salesforce/blip-image-captioning-base runs/blip": "test_hub.py, a hub on 127.0.0.1",
    ".venv/bin/python -m service --checkpoint runs/blip": "test_convert.py, tiny folders",
}


def commands(text: str) -> list[str]:
    """Return the command lines of the sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def run(command: str) -> subprocess.CompletedProcess[str]:
    words = command.split()
    words[0] = sys.executable if Path(words[0]).name == "python" else words[0]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def tracked_files() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if (ROOT / name).exists()]


def test_the_readme_is_short_and_has_the_two_commands():
    assert {"make serve", "make test"} <= set(commands(README))
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("command", [c for c in commands(README) if c not in RUN_ELSEWHERE])
def test_every_other_command_of_the_readme_runs(command):
    process = run(command)
    assert process.returncode == 0, process.stderr


def test_the_readmes_curl_command_works(tiny_captioner):
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed; the README needs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app({"tiny": tiny_captioner}, Settings()), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        command = next(command for command in commands(README) if command.startswith("curl"))
        process = run(command.replace("localhost:8000", f"127.0.0.1:{port}") + " --silent --fail --noproxy *")
        assert process.returncode == 0, process.stderr
        assert '"captions"' in process.stdout
    finally:
        server.should_exit = True
        thread.join(timeout=20)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_module_that_a_page_runs_exists(page):
    for name in re.findall(r"python -m ([a-z_.]+)", page.read_text(encoding="utf-8")):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_path_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    packages = "model|service|corpus|training|evaluation|benchmarks|report|examples|tests"
    for name in re.findall(rf"(?<![\w/.])((?:{packages})/[\w/.]+\.py)\b", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_of_a_documented_command_exists(page):
    """Flags of `python -m PACKAGE …` and train.py in sh blocks, compared with the parsers."""
    from tests.test_vocabulary import all_parsers

    flags = {flag for parser in all_parsers().values() for action in parser._actions for flag in action.option_strings}
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in commands(text):
        if re.search(r"\bpython (-m (model|corpus|evaluation|benchmarks|service)\b|train\.py)", command):
            for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", command):
                assert flag in flags, f"{command}: {flag}"


@pytest.mark.parametrize(("page", "name"), tables(), ids=lambda value: value)
def test_a_derived_table_equals_its_declaration(page, name):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert with_table(text, name, tables()[page, name]) == text, "run `make docs`"


def test_nothing_committed_names_a_path_of_a_machine():
    for path in tracked_files():
        if path.suffix in (".png", ".webp", ".safetensors"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|root|home|opt|var/tmp)/", text), path


@pytest.mark.slow
def test_a_short_training_of_the_readmes_kind_runs(tmp_path):
    process = run(f"python train.py --data scenes:64 --run {tmp_path}/run --max-steps 3 --eval-images 8")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run/best/config.json").exists()
