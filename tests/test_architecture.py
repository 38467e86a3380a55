"""The structure of docs/architecture.md: imports, file lengths, docstrings, names, checked by parsing every file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "model": set(),
    "report": {"model"},
    "corpus": {"model", "report"},
    "evaluation": {"model", "corpus", "report"},
    "benchmarks": {"model", "corpus", "report", "evaluation", "training"},
    "training": {"model", "corpus", "report", "evaluation"},
    "service": {"model", "report"},
    "examples": {"model", "report"},
    "train.py": {"model", "corpus", "training", "evaluation"},
}
PACKAGES = set(MAY_IMPORT) - {"train.py"}
SOURCES = sorted(path for name in MAY_IMPORT for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py")))
LAZY_IMPORTS = {  # imported inside a function only
    "model/files/run.py": "report",
    "evaluation/__main__.py": "benchmarks",
}
SERVICE_ONLY = {"pydantic", "fastapi", "pydantic_settings", "starlette", "uvicorn"}
# The service's sub-packages, from what computes to what speaks HTTP.
SERVICE_LAYERS = {"workers": set(), "runtime": {"workers"}, "http": {"runtime"}}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports(path: Path) -> list[tuple[str, ast.AST]]:
    names: list[tuple[str, ast.AST]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append((node.module, node))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_packages_import_only_what_they_may_and_only_public_names(path):
    package = package_of(path)
    for name, node in imports(path):
        other = name.split(".")[0]
        if other not in PACKAGES or other == package:
            continue
        if LAZY_IMPORTS.get(name_of(path)) == other:
            assert node.col_offset > 0, f"{name_of(path)} imports {other} outside of a function"
        else:
            assert other in MAY_IMPORT[package], f"{name_of(path)} imports {name}"
        assert name == other, f"{name_of(path)} imports {name}: only names of {other}/__init__.py are public"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_pydantic_and_fastapi_are_used_in_the_service_only(path):
    if package_of(path) != "service":
        assert not {name.split(".")[0] for name, _ in imports(path)} & SERVICE_ONLY


def test_the_services_packages_depend_in_one_direction_and_what_computes_knows_no_api():
    for path in sorted((ROOT / "service").rglob("*.py")):
        layer = path.relative_to(ROOT / "service").parts[0]
        if layer not in SERVICE_LAYERS:
            continue
        for name, _ in imports(path):
            if not name.startswith("service."):
                assert not (layer != "http" and name.split(".")[0] in ("fastapi", "starlette")), f"{name_of(path)}: {name}"
                continue
            other = name.split(".")[1]
            allowed = {layer, *SERVICE_LAYERS[layer]}
            assert other not in SERVICE_LAYERS or other in allowed, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_can_be_read_at_once(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_happens_at_import(path):
    """Module level has definitions and constants: no call whose value is dropped, no loop, no assert."""
    if path == ROOT / "model/_compat.py":  # the one exception, which says why
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        assert not is_call, f"{name_of(path)}, line {node.lineno}"
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Assert), f"{name_of(path)}, line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if path.name == "schemas.py":  # its fields have descriptions
                continue
            assert ast.get_docstring(node), f"{name_of(path)}: {node.name} has no docstring"


def test_one_module_reads_the_environment():
    readers = {path for path in SOURCES if re.search(r"os\.(environ\[|environ\.get|getenv)", path.read_text(encoding="utf-8"))}
    assert readers == {ROOT / "service/settings.py"}


def test_no_two_classes_share_a_name():
    classes: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(name_of(path))
    assert not {name: paths for name, paths in classes.items() if len(paths) > 1}


# Files that are tested through others: which test file executes them (test_each_indirect_test_executes_its_file runs it).
TESTED_THROUGH = {
    "test_benchmarks.py": ["benchmarks/commands.py", "benchmarks/scorer_cost.py"],
    "test_check.py": ["corpus/check_files.py", "corpus/check_images.py", "corpus/findings.py"],
    "test_formats.py": [
        "corpus/formats/coco.py", "corpus/formats/csv_files.py", "corpus/formats/fields.py", "corpus/formats/flickr8k.py",
        "corpus/formats/image_files.py", "corpus/formats/json_lines.py", "corpus/formats/karpathy.py",
        "corpus/formats/read_options.py", "corpus/formats/records.py", "corpus/formats/shards.py", "corpus/formats/sidecar.py",
        "corpus/formats/splits.py", "corpus/formats/text_files.py", "corpus/formats/webdataset_samples.py",
    ],
    "test_compare.py": ["evaluation/flags.py", "evaluation/ngrams.py", "evaluation/pages.py", "evaluation/tables.py"],
    "test_caption_files.py": ["model/files/outputs.py", "model/files/run.py", "model/files/targets.py"],
    "test_gradient_maps.py": ["model/maps/registry.py"],
    "test_convert.py": [
        "model/pretrained/blip.py", "model/pretrained/gpt2.py", "model/pretrained/source.py", "model/pretrained/tensors.py",
        "model/pretrained/bart.py", "model/pretrained/bert.py", "model/pretrained/swin.py", "model/pretrained/vit.py",
    ],
    "test_odd_checkpoints.py": ["model/pretrained/architectures.py", "model/pretrained/source_config.py"],
    "test_sources.py": ["model/pretrained/authors.py"],
    "test_pretrained.py": [
        "model/backbones.py", "model/encoder_config.py", "model/prompt_encoder.py", "model/pretrained/positions.py",
    ],
    "test_preprocessing.py": ["model/image/placement.py"],
    "test_prompts.py": ["model/answers.py", "model/tasks.py", "model/unconditional.py"],
    "test_confidence.py": ["model/calibrated.py"],
    "test_recipes.py": ["model/layers.py"],
    "test_connections.py": ["service/http/connections.py"],
    "test_service.py": [
        "service/http/dialects/native/openapi.py", "service/http/dialects/native/outputs.py",
        "service/http/dialects/native/parse.py", "service/http/dialects/native/problems.py",
        "service/http/dialects/native/routes.py", "service/http/negotiation.py", "service/http/openapi.py",
        "service/http/request_log.py", "service/http/responses.py", "service/metrics.py",
    ],
    "test_compatible_apis.py": [
        "service/http/dialects/flow.py", "service/http/dialects/foreign.py", "service/http/dialects/huggingface.py",
        "service/http/dialects/ibm_max.py", "service/http/dialects/moondream.py", "service/http/dialects/native/dialect.py",
        "service/http/dialects/ollama/generate.py", "service/http/dialects/ollama/models.py",
        "service/http/dialects/open_inference.py", "service/http/dialects/openai/chat.py",
        "service/http/dialects/openai/errors.py", "service/http/dialects/openai/responses.py",
        "service/http/dialects/replicate.py", "service/http/dialects/streaming.py",
    ],
    "test_compatible_details.py": ["service/http/dialects/mcp/tools.py"],
    "test_page.py": ["service/http/page.py", "service/http/static_files.py"],
    "test_training.py": ["training/packaged_stem.py", "training/run_data.py", "training/trained_network.py"],
    "test_failing_runs.py": ["training/run_files.py", "training/samples.py", "training/saves.py"],
    "test_ranks.py": ["training/frozen.py", "training/state_writer.py"],
    "test_image_workers.py": ["service/workers/worker.py"],
}  # fmt: skip


def test_every_source_file_has_a_test():
    """A test uses a public name of the file, imports it or starts its command line, or TESTED_THROUGH names the file."""
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name
    )
    words = set(re.findall(r"\w+", tests))
    through = {name for names in TESTED_THROUGH.values() for name in names}
    assert all((ROOT / name).exists() for name in through)
    assert all((ROOT / "tests" / name).exists() for name in TESTED_THROUGH)
    untested = []
    for path in SOURCES:
        if path.name == "__init__.py" or name_of(path) in through:
            continue
        module = name_of(path).removesuffix(".py").replace("/", ".")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        package, _, last = module.rpartition(".")
        patterns = [
            rf"\b{re.escape(module)}\b",
            rf"from {re.escape(package)} import [^\n]*\b{re.escape(last)}\b",
            rf'"-m", "{re.escape(package)}"' if last == "__main__" else r"(?!)",
        ]
        if words.isdisjoint(names) and not any(re.search(pattern, tests) for pattern in patterns):
            untested.append(name_of(path))
    assert not untested


@pytest.mark.slow
@pytest.mark.parametrize("test_file", TESTED_THROUGH)
def test_each_indirect_test_executes_its_file(test_file, tmp_path):
    """Run the test file with a profiler that records the files whose functions are called, subprocesses not included."""
    record = tmp_path / "called.txt"
    code = (
        "import sys, threading, pytest\n"
        "called = set()\n"
        "def profile(frame, event, arg):\n"
        "    if event == 'call' and frame.f_code.co_name != '<module>':\n"
        "        called.add(frame.f_code.co_filename)\n"
        "threading.setprofile(profile); sys.setprofile(profile)\n"
        f"status = pytest.main(['-q', '-m', 'not slow', 'tests/{test_file}'])\n"
        f"sys.setprofile(None); open({str(record)!r}, 'w').write('\\n'.join(sorted(called))); sys.exit(int(status))\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-2000:]
    called = set(record.read_text().splitlines())
    in_subprocess = {"service/workers/worker.py"}  # the worker's own process; `unpack` runs here
    missing = [name for name in TESTED_THROUGH[test_file] if str(ROOT / name) not in called and name not in in_subprocess]
    assert not missing
