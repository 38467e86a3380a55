"""Who may import whom, held by parsing every file; and the other promises of docs/architecture.md about files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "model": set(),
    "report": {"model"},
    "corpus": {"model", "report"},
    "evaluation": {"model", "corpus", "report"},
    "service": {"model", "report"},
    "training": {"model", "corpus"},
    "train.py": {"model", "corpus", "training", "evaluation"},
    "docs": {"model", "report"},
}
ROOMS = set(MAY_IMPORT) - {"train.py"}
SOURCES = sorted(path for room in MAY_IMPORT for path in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py")))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports(path: Path) -> list[tuple[str, ast.AST]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, ast.AST]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_enter_only_those_they_may_and_by_the_front_door(path):
    room = room_of(path)
    for name, node in imports(path):
        other = name.split(".")[0]
        if other not in ROOMS or other == room:
            continue
        if path == ROOT / "model/__main__.py" and other == "report":
            assert node.col_offset > 0, "report is imported inside the function that draws"
            continue
        assert other in MAY_IMPORT[room], f"{path} imports {name}"
        assert name == other, f"{path} enters {other} by a window: {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pydantic_and_fastapi_live_in_the_service_only(path):
    if room_of(path) != "service":
        assert not {name.split(".")[0] for name, _ in imports(path)} & {
            "pydantic",
            "fastapi",
            "pydantic_settings",
            "starlette",
        }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_can_be_read_once(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 310


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_happens_at_import(path):
    """Module level holds definitions and constants: no call whose value is thrown away, no loop, no assert."""
    allowed = {
        ROOT / "model/torchvision_operators.py": ["declare_missing_operators"],
    }
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            text = ast.unparse(node.value)
            ok = text.startswith("os.environ.setdefault('OMP_WAIT_POLICY'") and path.name in ("__main__.py", "train.py")
            assert ok or any(text.startswith(name) for name in allowed.get(path, [])), f"{path}: {text}"
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Assert), f"{path}, line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if path.name == "schemas.py" or node.name == "main":
                continue
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"


def test_the_environment_is_read_in_one_place():
    readers = {path for path in SOURCES if re.search(r"os\.(environ\[|environ\.get|getenv)", path.read_text(encoding="utf-8"))}
    assert readers <= {ROOT / "service/settings.py"}


def test_every_source_file_has_a_test_that_names_its_room():
    tests = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    for room in ROOMS:
        assert re.search(rf"from {room}[. ]", tests), f"no test imports {room}"
