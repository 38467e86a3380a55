"""The project's language: retired words do not return, in identifiers, options, comments or documentation."""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

from model import GenerationOptions, fields_of
from model.__main__ import make_parser as model_parser
from service import Settings
from service.__main__ import make_parser as service_parser
from service.http.dialects.native.schemas import CaptionOptions, ExplanationOptions
from tests.test_architecture import ROOT, SOURCES, name_of
from training import make_parser as training_parser

# As a part of any identifier that is defined here.
RETIRED = {
    "told", "tell", "tells", "telling", "untold", "found", "wanted", "asked", "given", "begun", "begin", "seen", "place",
    "places", "placed", "behind", "blind", "nothing", "odds", "dice", "hired", "heard", "converse", "settle", "settled",
    "picture", "pictures", "photograph", "photographs", "house", "houses", "room", "rooms", "door", "doors", "mend", "mends",
}  # fmt: skip
RETIRED_PREFIXES = ("most_", "least_", "_most_", "_least_", "MOST_", "LEAST_", "_MOST_", "_LEAST_")
# In comments, docstrings and documentation.
RETIRED_PROSE = [
    r"\btold\b",
    r"\bwanted\b",
    r"\bbegun\b",
    r"\bhired\b",
    r"\bdice\b",
    r"\bodds\b",
    r"\bblind\b",
    r"hang together",
    r"\bmend(s|ed)?\b",
    r"\b[Ss]omebody\b",
    r"\b[Nn]obody\b",
    r"(?<![/-])\bpictures?\b(?![/.])",
    r"\bread out\b",
    r"\breplay(s|ed)?\b",
    r"\bfront door\b",
    r"\b(images|captions|samples|rows|values|requests|records|tokens|ms|MB|milliseconds) an? (second|minute|image|row|request)\b",
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EXTERNAL = {"on_message_begin", "given"}  # callbacks and names of other packages


def parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def defined_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_no_identifier_has_a_retired_word(path):
    names = {name for name in defined_names(path) - EXTERNAL if not name.startswith("test_")}
    bad = {name for name in names if parts(name) & RETIRED or name.startswith(RETIRED_PREFIXES)}
    assert not bad


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_comment_or_docstring_has_a_retired_word(path):
    source = path.read_text(encoding="utf-8")
    texts = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            texts.append(ast.get_docstring(node) or "")
    bad = [text for text in texts if any(re.search(pattern, text) for pattern in RETIRED_PROSE)]
    assert not bad


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_no_test_name_has_a_retired_word(path):
    allowed = {"nothing", "begin"}  # "changes nothing": what is retired is "nothing" for "no image"
    names = {name for name in defined_names(path) if name.startswith("test_")}
    assert not {name for name in names if parts(name) & (RETIRED - allowed)}


def documents() -> list[Path]:
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in tracked if (ROOT / name).exists()]


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_no_document_has_a_retired_word(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    bad = [line for line in lines if any(re.search(pattern, line) for pattern in RETIRED_PROSE)]
    assert not bad


def test_no_option_or_setting_has_a_retired_word():
    names = [*CaptionOptions.model_fields, *ExplanationOptions.model_fields, *Settings.model_fields]
    assert not [name for name in names if parts(name) & RETIRED]


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    from benchmarks.__main__ import make_parser as benchmarks_parser
    from corpus.__main__ import make_parser as corpus_parser
    from evaluation.__main__ import make_parser as evaluation_parser

    parsers = {
        "model": model_parser(),
        "corpus": corpus_parser(),
        "evaluation": evaluation_parser(),
        "benchmarks": benchmarks_parser(),
        "service": service_parser(),
        "train.py": training_parser(),
    }
    for name, parser in list(parsers.items()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers |= {f"{name} {command}": sub for command, sub in action.choices.items()}
    return parsers


def test_help_explains_every_flag_in_plain_words_with_its_default():
    problems = []
    for name, parser in all_parsers().items():
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
                continue
            flag = action.option_strings[-1] if action.option_strings else action.dest
            text = action.help or ""
            if not text or "\n" in text or any(re.search(pattern, text) for pattern in RETIRED_PROSE) or parts(flag) & RETIRED:
                problems.append(f"{name}: {flag}: {text!r}")
            has_value = action.option_strings and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction)
            if has_value and action.default not in (None, [], "", argparse.SUPPRESS) and "default" not in text:
                problems.append(f"{name}: {flag} has no default in its help: {text!r}")
    assert not problems


def test_options_have_one_name_everywhere():
    names = {info.name for info in fields_of(GenerationOptions)}
    flags = {info.flag for info in fields_of(GenerationOptions)}
    assert names <= set(CaptionOptions.model_fields)
    caption = next(parser for name, parser in all_parsers().items() if name == "model caption")
    assert flags <= {flag for action in caption._actions for flag in action.option_strings}
